"""What can go wrong on the way, on request."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """``applies``: the request has its effect first. ``what``: one line for a person."""

    name: str
    applies: bool
    what: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """``share`` of the requests have ``fault``, or are answered ``status``."""

    name: str
    share: float
    status: int | None = None
    fault: Fault | None = None


FAULTS = {
    fault.name: fault
    for fault in (
        Fault(name="timeout", applies=False, what="no answer, and no effect"),
        Fault(name="timeout-after", applies=True, what="it has its effect, but no answer comes"),
        Fault(name="reset", applies=False, what="the connection is reset, and no effect"),
        Fault(name="reset-after", applies=True, what="it has its effect, then a reset"),
        Fault(name="slow", applies=True, what="the answer comes byte by byte"),
        Fault(name="html", applies=False, what="200 with a page, as from a captive portal"),
        Fault(name="truncated", applies=True, what="half of the answer, then the end"),
        Fault(name="partial", applies=True, what="batch/data changes every second person only"),
    )
}


class Dice:
    """Which failure a request has; the same for the same seed and order of requests."""

    def __init__(self, failures: Sequence[Failure], seed: int) -> None:
        self._failures = failures
        self._random = random.Random(seed)

    def draw(self) -> Failure | None:
        """One draw for each failure, so that their shares do not depend on each other."""
        drawn = [f for f in self._failures if self._random.random() < f.share]
        return drawn[0] if drawn else None
