"""How a sandbox behaves, and how a person writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from audience_sync.sandbox.faults import FAULTS, Failure

WEBSITE = "5a9d8c2e-0000-4000-8000-5a9db0c5a001"
"""The website that there is when none is named."""

TIERS = ("plugin", "website", "user")
QUOTAS = {"plugin": 5_000, "website": 10_000}
"""Requests a day, as Crisp documents them; for ``user`` it documents none."""

RATE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?:/s)?\Z")
FAILURE = re.compile(r"(?P<what>[a-z-]+|[45][0-9]{2}):(?P<share>[0-9.]+)\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """
    Args:
        crisp_key: ``identifier:key``.
        tiers: those that the key is good for.
        quota: requests a day, of each tier; ``None``: as Crisp documents.
        rate: requests a second that Crisp takes; ``None``: as many as come.
        segment_rate: events a second that Segment takes.
        batch_people: how many people one request of ``batch/data`` may name.
        stale: seconds for which an answer to GET or HEAD is given again.
        lenient: an unknown write key gets 200, and what it sent vanishes.
        hang: seconds until a connection with the fault ``timeout`` is cut.
        drip: seconds between two bytes of a slow answer.
    """

    write_key: str = "sandbox-write-key"
    crisp_key: str = "sandbox:sandbox-key"
    websites: tuple[str, ...] = (WEBSITE,)
    tiers: tuple[str, ...] = TIERS
    quota: int | None = None
    rate: float | None = None
    segment_rate: float | None = None
    batch_people: int = 500
    stale: float = 0.0
    lenient: bool = False
    failures: tuple[Failure, ...] = ()
    hang: float = 30.0
    drip: float = 0.5
    seed: int = 0

    def quota_of(self, tier: str) -> int | None:
        return QUOTAS.get(tier) if self.quota is None else self.quota


def failure(text: str) -> Failure:
    """Parses ``429:0.1`` and ``reset:0.05``.

    Raises:
        ValueError: not of this form, or not a fault that we have.
    """
    match = FAILURE.match(text)
    if match is None:
        raise ValueError("write a status or a fault, and its share, such as 429:0.1 or reset:0.05")
    what = match["what"]
    try:
        share = float(match["share"])
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError("the share must be a number from 0 to 1")
    if what.isdigit():
        return Failure(name=what, share=share, status=int(what))
    fault = FAULTS.get(what)
    if fault is None:
        raise ValueError(f"no fault {what}; there are: a status, {', '.join(FAULTS)}")
    return Failure(name=what, share=share, fault=fault)


def per_second(text: str) -> float:
    """Parses ``10/s``.

    Raises:
        ValueError: not of this form, or 0.
    """
    match = RATE.match(text)
    if match is None or float(match["number"]) <= 0:
        raise ValueError('write a number per second, such as "10/s"')
    return float(match["number"])
