"""Rates: how much of one a lane may use, and when the next piece may go."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import StrEnum

RATE = re.compile(r"\s*(\d[\d_]*(?:\.\d+)?)\s*/\s*(s|sec|second|min|minute|h|hour)\s*\Z")
SECONDS = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600}

SAVED_UP = 1.0
"""Seconds of silence whose share may be sent at once."""


class Lane(StrEnum):
    INITIAL = "initial"
    INCREMENTAL = "incremental"


def parse_rate(text: str) -> float:
    """``"1000/s"`` → 1000.0 per second.

    Raises:
        ValueError: no unit, or not above zero.
    """
    match = RATE.match(text)
    if match is None:
        raise ValueError('write a number and a unit, such as "1000/s" or "600/min"')
    rate = float(match[1].replace("_", "")) / SECONDS[match[2]]
    if rate <= 0:
        raise ValueError("must be above zero")
    return rate


def share(lane: Lane, *, reserve: float, initial_open: bool) -> float:
    """The part of a destination's rate a lane may use; the parts never add up to more than one.

    The split is static while an initial span is open, so no bucket is shared between nodes.
    """
    if not initial_open:
        return 1.0
    return reserve if lane is Lane.INCREMENTAL else 1.0 - reserve


@dataclass(slots=True)
class Pace:
    """One second's worth at once, then piece by piece; halves on 429 and climbs back.

    Every piece gets a stretch of time of its own, as long as the rate was when it asked. So
    pieces that wait while the rate changes never meet with those that ask afterwards. Times are
    seconds of any one monotonic clock.
    """

    rate: float
    current: float = field(init=False)
    free_at: float = field(init=False, default=-math.inf)
    asked_at: float = field(init=False, default=-math.inf)

    def __post_init__(self) -> None:
        self.current = self.rate

    def wait(self, amount: int, now: float) -> float:
        """Take ``amount`` pieces; seconds to wait before they may go.

        More than one second's worth may go at once: the next one waits for the rest, so a
        batch larger than the rate still travels.
        """
        start = max(self.free_at, now - SAVED_UP)
        self.free_at = start + amount / self.current
        self.asked_at = now
        return max(0.0, start - now)

    def slow_down(self) -> None:
        self.current = max(self.current / 2, self.rate / 64)
        self.free_at = max(self.free_at, self.asked_at)

    def climb(self) -> None:
        """A success: five per cent of the configured rate back, never above it."""
        self.current = min(self.rate, self.current + self.rate * 0.05)
