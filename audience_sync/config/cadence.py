"""From a written cadence (``"3h"``, ``"2h..3h"``, ``"0 */3 * * *"``) to when the next capture is.

Cron here is the cron of Unix: weekday 0 and 7 are Sunday, and when both days are restricted
either is enough. APScheduler counts weekdays from Monday and wants both, so numbers become names
and such a line becomes two triggers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING

from audience_sync.domain.schedule import Cadence, parse_every

if TYPE_CHECKING:
    from apscheduler.triggers.cron import CronTrigger

FIELDS = 5
NUMERIC = re.compile(r"[0-9*,/-]+\Z")
ITEM = re.compile(r"(?:\*|(?P<first>\w{1,3})(?:-(?P<last>\w{1,3}))?)(?:/(?P<step>[0-9]{1,2}))?\Z")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
NEVER = "never happens"
LEAP_YEAR = datetime(2000, 1, 1, tzinfo=UTC)
ONE_LEAP_CYCLE = timedelta(days=4 * 366)


def parse_cadence(text: str, timezone: tzinfo) -> Cadence:
    """A duration, a range of durations, or five cron fields read in ``timezone``.

    Raises:
        ValueError: neither, or a cron line that never happens.
    """
    fields = text.split()
    if len(fields) == FIELDS or "*" in text:
        return _cron(fields, timezone)
    return parse_every(text)


@dataclass(frozen=True, slots=True)
class Cron:
    """Cron fields on the wall clock of ``timezone``.

    A wall time that a change of the clock skips happens that much later; one that comes twice
    happens once, unless the line runs every hour.
    """

    text: str
    timezone: tzinfo
    _triggers: tuple[CronTrigger, ...] = field(compare=False, repr=False)
    """They see wall times labelled as UTC, so that no change of the clock confuses them."""

    def next_after(self, cycle_time: datetime, draw: float) -> datetime:
        """``draw`` changes nothing: a cron line names exact times."""
        wall = cycle_time.astimezone(self.timezone).replace(tzinfo=UTC)
        first = self._first(cycle_time, self._instants(wall, fold=0))
        if self.text.split()[1] != "*":
            return first
        again = self._instants(wall - timedelta(hours=1), fold=1)
        return min(first, self._first(cycle_time, again))

    def _first(self, cycle_time: datetime, instants: Iterator[datetime]) -> datetime:
        later = (instant for instant in instants if instant > cycle_time)
        return next(later, datetime.max.replace(tzinfo=UTC))

    def _instants(self, wall: datetime, *, fold: int) -> Iterator[datetime]:
        while True:
            after = wall.replace(fold=0) + timedelta(microseconds=1)
            times = [trigger.get_next_fire_time(None, after) for trigger in self._triggers]
            if not any(times):
                return
            wall = min(time for time in times if time is not None)
            local = wall.replace(tzinfo=self.timezone, fold=fold)
            instant = local.astimezone(UTC)
            exists = instant.astimezone(self.timezone).replace(tzinfo=None) == wall.replace(
                tzinfo=None
            )
            if exists or not fold:
                yield instant


def _cron(fields: list[str], timezone: tzinfo) -> Cron:
    if len(fields) != FIELDS:
        raise ValueError(f"a cron line has five fields, not {len(fields)}")
    minute, hour, day, month, weekday = (part.lower() for part in fields)
    month = ",".join(str(MONTHS.index(m) + 1) if m in MONTHS else m for m in month.split(","))
    for name, part in (("minute", minute), ("hour", hour), ("day", day), ("month", month)):
        if not NUMERIC.match(part):
            raise ValueError(f"a cron line's {name} holds only numbers and * , - /")
    weekdays = _weekdays(weekday)
    days = [(day, weekdays)]
    if not day.startswith("*") and not weekday.startswith("*"):
        days = [(day, "*"), ("*", weekdays)]
    triggers = tuple(
        _trigger(minute=minute, hour=hour, day=d, month=month, day_of_week=w) for d, w in days
    )
    return Cron(" ".join(fields), timezone, triggers)


def _trigger(**fields: str) -> CronTrigger:
    from apscheduler.triggers.cron import CronTrigger

    try:
        soon = CronTrigger(**fields, end_date=LEAP_YEAR + ONE_LEAP_CYCLE, timezone=UTC)
    except (ValueError, TypeError, OverflowError):
        raise ValueError("not a cron line: a number is out of range") from None
    if soon.get_next_fire_time(None, LEAP_YEAR) is None:
        raise ValueError(f"a cron line that {NEVER}")
    return CronTrigger(**fields, timezone=UTC)


def _weekdays(text: str) -> str:
    """Names for APScheduler; ``5-7`` → ``fri,sat,sun``, ``sat-mon`` → ``sun,mon,sat``."""
    if text == "*":
        return text
    numbers = {number % 7 for item in text.split(",") for number in _weekday_range(item)}
    return ",".join(WEEKDAYS[number] for number in sorted(numbers))


def _weekday_range(item: str) -> range:
    match = ITEM.match(item)
    step = int(match["step"] or 1) if match else 0
    if match is None or step == 0:
        raise ValueError("a cron line's weekday is 0-7 or sun to sat")
    if match["first"] is None:
        return range(0, 7, step)
    first = _weekday(match["first"])
    if match["last"] is None:
        return range(first, 7 if match["step"] else first + 1, step)
    last = _weekday(match["last"])
    return range(first, (last if last >= first else last + 7) + 1, step)


def _weekday(text: str) -> int:
    if text in WEEKDAYS:
        return WEEKDAYS.index(text)
    if text not in tuple("01234567"):
        raise ValueError("a cron line's weekday is 0-7 or sun to sat")
    return int(text)
