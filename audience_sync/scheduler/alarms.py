"""Alarms for capture cycles: APScheduler rings them, each in the thread of its source."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.date import DateTrigger

from audience_sync.scheduler.agenda import Group
from audience_sync.scheduler.overdue import Overdue

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """``name``: of APScheduler's job."""

    at: datetime
    name: str


class Alarms:
    """One for each group, which begins a cycle of it.

    APScheduler drops late runs, starves intervals at restarts and sleeps through a clock that is
    set back; so whoever sets the alarms asks the store again and again what is due, and a job is
    only the alarm for one cycle.

    Args:
        loops: cycles of one loop come one after another.
        cycle: called when the alarm of a group rings; it raises nothing.
        ended: called after a cycle, when the next alarm may be set.
        lost: called with the loop of an alarm that did not ring, and is set anew.
    """

    def __init__(
        self,
        loops: Collection[str],
        *,
        cycle: Callable[[Group], None],
        ended: Callable[[], None],
        lost: Callable[[str], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._cycle = cycle
        self._ended = ended
        self._lost = lost
        self._clock = clock
        self._planned: dict[str, Alarm] = {}
        self._overdue = Overdue()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._at_work: set[str] = set()
        self._at_rest = threading.Condition(self._lock)
        self._scheduler = BackgroundScheduler(
            jobstores={"default": MemoryJobStore()},
            executors={loop: ThreadPoolExecutor(1) for loop in loops},
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
            timezone=UTC,
        )

    def start(self) -> None:
        with self._lock:  # its thread is made after it says that it runs
            self._scheduler.start()

    def shutdown(self) -> None:
        """None rings any more. May be called again, and before ``start``."""
        with self._lock:
            if self._scheduler.running:
                # One that rings while it shuts down would be an error in APScheduler's thread.
                self._scheduler.remove_all_jobs()
                self._scheduler.shutdown(wait=False)

    def join(self, seconds: float) -> bool:
        """Whether the cycles under way have ended within ``seconds``."""
        with self._at_rest:
            return self._at_rest.wait_for(lambda: not self._at_work, seconds)

    def wake(self) -> None:
        """The clock was set: alarms are counted anew."""
        self._scheduler.wakeup()

    def set(self, group: Group, at: datetime) -> datetime:
        """Have the alarm of ``group`` ring at ``at``; when it does, for one thread to call.

        One that has come is under way, or about to be: the next is set when that cycle has ended.
        """
        with self._lock:
            planned = self._planned.get(group.name)
            has_come = planned is not None and planned.at <= self._clock()
            waits = has_come and group.loop not in self._at_work
            is_lost = planned is not None and self._overdue.is_lost(planned.name, waits=waits)
            if planned is not None and (planned.at == at or has_come) and not is_lost:
                return planned.at
            # A name of its own: APScheduler drops an alarm while one of the same name ends.
            alarm = Alarm(at=at, name=f"{group.name}, alarm {next(self._numbers)}")
            self._planned[group.name] = alarm
        if planned is not None:
            self._overdue.forget(planned.name)
            with suppress(JobLookupError):
                self._scheduler.remove_job(planned.name)
        if is_lost:
            log.warning("an alarm was lost: it is set anew", loop=group.loop)
            self._lost(group.loop)
        self._scheduler.add_job(
            self._ring,
            DateTrigger(at, UTC),
            args=[group],
            id=alarm.name,
            name=alarm.name,
            executor=group.loop,
        )
        return at

    def _ring(self, group: Group) -> None:
        with self._lock:
            self._at_work.add(group.loop)
        try:
            self._cycle(group)
        finally:
            with self._at_rest:
                self._planned.pop(group.name, None)
                self._at_work.discard(group.loop)
                self._at_rest.notify_all()
            self._ended()
