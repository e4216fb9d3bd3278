"""Rates and daily quotas: how much of them a lane may use, and when the next piece may go."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

RATE = re.compile(r"\s*(\d[\d_]*(?:\.\d+)?)\s*/\s*(s|sec|second|min|minute|h|hour)\s*\Z")
SECONDS = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600}

QUOTA = re.compile(r"\s*(\d[\d_]*)\s*/\s*(?:d|day)\s*\Z")
DAY = 86_400
LONGEST = timedelta(days=36_525)
"""A forecast beyond it is of no use, and further away times overflow."""

SAVED_UP = 1.0
"""Seconds of silence whose share may be sent at once."""

LATE_AT_MOST = 0.5
"""Seconds beyond that, by which a busy machine may wake somebody; more is a standstill."""

BLOCK_SECONDS = 5
"""So many seconds' worth of the rate are reserved of a quota at once."""


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


def parse_quota(text: str) -> int:
    """``"5000/day"`` → 5000 a day.

    Raises:
        ValueError: no unit, another one than a day, no whole number, or not above zero.
    """
    match = QUOTA.match(text)
    if match is None:
        raise ValueError('write a whole number a day, such as "5000/day"')
    quota = int(match[1].replace("_", "")[:20])
    if quota <= 0:
        raise ValueError("must be above zero")
    return quota


def share(lane: Lane, *, reserve: float, initial_open: bool) -> float:
    """The part of a destination's rate a lane may use; the parts never add up to more than one.

    The split is static while an initial span is open, so no bucket is shared between nodes.
    """
    if not initial_open:
        return 1.0
    return reserve if lane is Lane.INCREMENTAL else 1.0 - reserve


def quota_of(lane: Lane, *, quota: int, reserve: float) -> int:
    """What a lane may use in a day in which the other one uses nothing."""
    return quota - (_reserved(quota, reserve) if lane is Lane.INITIAL else 0)


def quota_left(lane: Lane, *, quota: int, reserve: float, used: Mapping[Lane, int]) -> int:
    """What a lane may still use of a day of which ``used`` is gone.

    Both together never use more than ``quota``. The initial lane leaves what is unused of the
    reserve to the incremental one, which may use everything that is left: that changes are told
    in time matters more than when an initial sync is done.
    """
    incremental = used.get(Lane.INCREMENTAL, 0)
    left = quota - incremental - used.get(Lane.INITIAL, 0)
    if lane is Lane.INITIAL:
        left -= max(_reserved(quota, reserve) - incremental, 0)
    return max(left, 0)


def _reserved(quota: int, reserve: float) -> int:
    return math.ceil(round(quota * reserve, 6))


def block_of(wanted: int, *, quota: int, rate: float) -> int:
    """How much of a quota is reserved at once by whoever needs ``wanted`` of it now.

    More than that, so that a quick destination costs no write for each request; but not more
    than a few seconds' worth and 1 % of the quota, since a process that is killed loses it.
    """
    return max(wanted, min(math.ceil(rate * BLOCK_SECONDS), quota // 100))


def next_day(now: datetime) -> datetime:
    """When the quota of the next day begins: midnight UTC."""
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today + timedelta(days=1)


def done_in(
    calls: int, now: datetime, *, rate: float, per_day: int | None = None, left: int = 0
) -> timedelta:
    """How long ``calls`` take, at most ``LONGEST``.

    Args:
        rate: per second.
        per_day: of the quota; ``None``: there is none.
        left: of it, today.
    """
    seconds, longest = calls / rate, LONGEST.total_seconds()
    if per_day is None:
        return timedelta(seconds=min(seconds, longest))
    until_midnight = (next_day(now) - now).total_seconds()
    today = min(left, math.floor(rate * until_midnight))
    if calls > today:
        each_day = max(min(per_day, math.floor(rate * DAY)), 1)
        whole_days, rest = divmod(calls - today - 1, each_day)
        seconds = until_midnight + whole_days * DAY + (rest + 1) / rate
    return timedelta(seconds=min(seconds, longest))


@dataclass(slots=True, eq=False)
class Turn:
    """When some pieces may go. It is put off if the rate falls while they wait."""

    at: float
    lasts: float
    """Seconds until those after them may go."""


@dataclass(slots=True)
class Pace:
    """One second's worth at once, then piece by piece; halves on 429 and climbs back.

    Every piece gets a stretch of time of its own, as long as the rate was when it asked. So
    pieces that wait while the rate changes never meet with those that ask afterwards. When the
    rate is lowered for good, the stretches to come become longer. Times are seconds of any one
    monotonic clock.
    """

    rate: float
    current: float = field(init=False)
    free_at: float = field(init=False, default=-math.inf)
    asked_at: float = field(init=False, default=-math.inf)
    turns: list[Turn] = field(init=False, default_factory=list)
    """Of pieces that wait."""

    def __post_init__(self) -> None:
        self.current = self.rate

    def turn(self, amount: int, now: float) -> Turn:
        """Take ``amount`` pieces.

        More than one second's worth may go at once: the next one waits for the rest, so a
        batch larger than the rate still travels.
        """
        turn = Turn(max(self.free_at, now - SAVED_UP), amount / self.current)
        self.free_at = turn.at + turn.lasts
        self.asked_at = now
        self.turns.append(turn)
        return turn

    def gone(self, turn: Turn) -> None:
        """Its pieces go."""
        self.turns.remove(turn)

    def give_back(self, turn: Turn) -> None:
        """Its pieces do not go, nor do any that asked after them."""
        self.turns.remove(turn)
        self.free_at -= turn.lasts

    def catch_up(self, now: float) -> None:
        """After a standstill (a stopped process, a frozen machine) no more than what is saved up
        goes at once: everybody who waits is put off by the rest of the time that was missed."""
        late = now - min((turn.at for turn in self.turns), default=now)
        if late > SAVED_UP + LATE_AT_MOST:
            for turn in self.turns:
                turn.at += late - SAVED_UP
            self.free_at += late - SAVED_UP

    def change(self, rate: float, now: float) -> None:
        """Another rate from now on; how far it is slowed down stays."""
        factor = rate / self.rate
        self.rate, self.current = rate, min(self.current * factor, rate)
        if factor < 1:
            for turn in self.turns:
                turn.at = _put_off(turn.at, now, factor)
                turn.lasts /= factor if turn.at > now else 1.0
            self.free_at = _put_off(self.free_at, now, factor)

    def slow_down(self) -> None:
        self.current = max(self.current / 2, self.rate / 64)
        self.free_at = max(self.free_at, self.asked_at)

    def climb(self) -> None:
        """A success: five per cent of the configured rate back, never above it."""
        self.current = min(self.rate, self.current + self.rate * 0.05)


def _put_off(at: float, now: float, factor: float) -> float:
    return now + (at - now) / factor if at > now else at
