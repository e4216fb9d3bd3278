"""Durations, cadences, and when an audience is due."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
DURATION = re.compile(r"(?:\d+[smhdw])+\Z")
LONGEST = timedelta(days=3660)
FIRST_YEAR, LAST_YEAR = 1970, 2200
"""Of a cycle time."""


def parse_duration(text: str) -> timedelta:
    """``"90m"``, ``"3h"``, ``"1h30m"``, ``"30d"``.

    Raises:
        ValueError: without a unit, zero, negative or above ten years.
    """
    text = text.strip().replace(" ", "")
    if not DURATION.match(text):
        raise ValueError('write a number and a unit, such as "30m", "3h" or "30d"')
    parts = re.findall(r"(\d+)([smhdw])", text)
    if any(len(number) > 9 for number, _ in parts):
        raise ValueError("must be at most ten years")
    seconds = sum(int(number) * SECONDS[unit] for number, unit in parts)
    if seconds == 0:
        raise ValueError("must be above zero")
    if seconds > LONGEST.total_seconds():
        raise ValueError("must be at most ten years")
    return timedelta(seconds=seconds)


def is_cycle_time(time: datetime) -> bool:
    """Whether a cycle may be for ``time``: much further away, a time and a cadence overflow."""
    return FIRST_YEAR < time.year < LAST_YEAR


class Cadence(Protocol):
    """How often an audience is captured."""

    def next_after(self, cycle_time: datetime, draw: float) -> datetime:
        """When a capture for ``cycle_time`` is followed by the next; ``draw`` is in [0, 1)."""


@dataclass(frozen=True, slots=True)
class Every:
    """A time between ``shortest`` and ``longest``, drawn anew each cycle."""

    shortest: timedelta
    longest: timedelta

    def next_after(self, cycle_time: datetime, draw: float) -> datetime:
        return cycle_time + self.shortest + (self.longest - self.shortest) * draw


def parse_every(text: str) -> Every:
    """``"3h"`` or ``"2h..3h"``.

    Raises:
        ValueError: not a duration, or a range whose end comes first.
    """
    first, dots, last = text.partition("..")
    shortest = parse_duration(first)
    longest = parse_duration(last) if dots else shortest
    if longest < shortest:
        raise ValueError("the shorter time comes first")
    return Every(shortest, longest)


def is_due(now: datetime, *, last: datetime | None, due: datetime | None, clock: datetime) -> bool:
    """Whether a cycle for ``now`` is due. Cycle times are cut to the second, and so is ``due``:
    what is ordered now is due now.

    Args:
        clock: the real time, against which one sees that the clock went back: a last capture
            that lies in its future. A last capture after ``now`` alone says that another run
            was quicker, and one for ``now`` that the clock went back since this cycle began.
    """
    if last is None or due is None or now >= due.replace(microsecond=0):
        return True
    return last > clock and last != now
