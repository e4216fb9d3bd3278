"""Amounts with a unit: percentages, durations, rates, quotas, sizes.

Parsers raise ``ValueError`` with a sentence that does not repeat the text: it may come from the
environment.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

from audience_sync.domain.quota import parse_quota, parse_rate
from audience_sync.domain.schedule import parse_duration

PERCENT = re.compile(r"\s*([0-9]{1,7}(?:\.[0-9]{1,6})?)\s*%\s*\Z")
SIZE = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*([KMGT]i?B)\s*\Z", re.IGNORECASE)
BYTES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
BYTES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
FASTEST = 1_000_000.0
SLOWEST = 1 / 3600
LARGEST_QUOTA = 100_000_000_000
"""More than the highest rate gives in a day."""
SMALLEST_MEMORY = 128 * 10**6
LARGEST_MEMORY = 64 * 10**12


def share(least: float, most: float) -> Callable[[str], float]:
    """Parses ``"20%"`` to 0.2; the bounds are fractions."""

    def parse(text: str) -> float:
        match = PERCENT.match(text)
        if match is None:
            raise ValueError('write a percentage, such as "20%"')
        value = float(match[1]) / 100
        if not least <= value <= most:
            raise ValueError(f"must be from {least * 100:g}% to {most * 100:g}%")
        return value

    return parse


DEFAULT_RESERVE = "20%"
reserve = share(0.01, 0.99)


def duration(least: timedelta, most: timedelta, bounds: str) -> Callable[[str], timedelta]:
    """Parses ``"30s"``; ``bounds`` says the limits in words."""

    def parse(text: str) -> timedelta:
        value = parse_duration(text)
        if not least <= value <= most:
            raise ValueError(f"must be {bounds}")
        return value

    return parse


def rate(text: str) -> float:
    value = parse_rate(text)
    if not SLOWEST <= value <= FASTEST:
        raise ValueError("must be from 1/h to 1000000/s")
    return value


def quota(text: str) -> int:
    value = parse_quota(text)
    if value > LARGEST_QUOTA:
        raise ValueError("must be at most 100000000000/day; leave it out for none")
    return value


def size(text: str) -> int:
    """``"768MB"`` → 768,000,000 bytes, as DuckDB counts them; ``MiB`` are powers of two."""
    match = SIZE.match(text)
    if match is None:
        raise ValueError('write a size and a unit, such as "768MB" or "2GB"')
    value = int(float(match[1]) * BYTES[match[2].lower()])
    if not SMALLEST_MEMORY <= value <= LARGEST_MEMORY:
        raise ValueError("must be from 128MB to 64TB")
    return value
