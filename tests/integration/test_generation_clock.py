"""The daemon's work under a clock that is set, forward and back: late by little, twice never.

The clock is moved, nothing is waited for but the next look (P14).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from apscheduler.schedulers import base

from audience_sync import app, bootstrap
from audience_sync.config.load import load
from audience_sync.scheduler import cycles, loop, overdue
from audience_sync.scheduler.agenda import Capturing
from audience_sync.scheduler.generation import Generation
from audience_sync.scheduler.pulse import Pulse
from audience_sync.scheduler.slot import Slot
from audience_sync.standing.counters import Counters
from tests.acceptance.program import wait_until

CONFIGURATION = """
[store]
url = "sqlite:///state.db"
keep = "3000d"
[schedule]
every = "{every}"
timezone = "Europe/Berlin"
[sources.files]
type = "files"
root = "."
[destinations.calls]
type = "ndjson"
path = "calls.ndjson"
[[audiences]]
name = "vip"
source = "files"
query = "FROM 'vip.csv'"
destinations = ["calls"]
"""
SUMMER_ENDS = datetime(2026, 10, 25, 0, 0, tzinfo=UTC)
"""02:00 in Berlin; at 01:00 UTC the clock goes from 03:00 back to 02:00."""
SUMMER_BEGINS = datetime(2026, 3, 29, 0, 0, tzinfo=UTC)
"""01:00 in Berlin; at 01:00 UTC the clock goes from 02:00 to 03:00."""


class Clock:
    """Shows what a person set it to, and stands still otherwise."""

    def __init__(self) -> None:
        self.shows = datetime(2026, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.shows


class Work:
    """A generation at work on one audience, and the times its captures were for."""

    def __init__(self, folder: Path, clock: Clock, every: str) -> None:
        (folder / "config.toml").write_text(CONFIGURATION.format(every=every))
        (folder / "vip.csv").write_text("user_id\nu1\nu2\n")
        self.clock = clock
        self.app = bootstrap.build(load([folder / "config.toml"], {}), writes=True)
        self.pulse = Pulse(time.monotonic)
        self.generation = Generation(
            self.app,
            slot=Slot(),
            pulse=self.pulse,
            clock=clock,
            elapsed=time.monotonic,
            counters=Counters(),
        )
        self.looks = 0
        cycles = self.generation._cycles
        self._looked = cycles.look
        cycles.look = self._look  # type: ignore[method-assign]

    def captured(self) -> list[datetime]:
        with self.app.database.read() as connection:
            rows = connection.exec_driver_sql(
                "SELECT cycle_time FROM run WHERE kind = 'capture' ORDER BY id"
            ).all()
        return [datetime.fromisoformat(row[0]).replace(tzinfo=UTC) for row in rows]

    def wait_for(self, count: int) -> list[datetime]:
        over = time.monotonic() + 20
        while len(self.captured()) < count:
            assert time.monotonic() < over, f"captured only for {self.captured()}"
            time.sleep(0.02)
        self.settle()
        return self.captured()

    def settle(self) -> None:
        """Until the store was looked at with the clock as it is, and nobody is due.

        A look that read the store before a commit has set an alarm, which must have rung.
        """
        over, seen = time.monotonic() + 20, self.looks
        while self.looks < seen + 5 or not self._is_quiet():
            assert time.monotonic() < over, f"the next cycle is at {self.generation.next_cycle}"
            time.sleep(0.02)

    def _is_quiet(self) -> bool:
        at = self.generation.next_cycle
        return at is not None and at > self.clock.shows

    def _look(self, capturings: dict[str, Capturing]) -> datetime | None:
        at = self._looked(capturings)
        self.looks += 1
        return at


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (app, bootstrap):
        monkeypatch.setattr(module, "now", made)
    for name in ("generation", "loop"):
        monkeypatch.setattr(f"audience_sync.scheduler.{name}.LOOK_EVERY", 0.05)
    assert loop.LOOK_EVERY == 0.05
    # By the real clock each alarm has come: it would ring at once, and be set again, and again.
    monkeypatch.setattr(base, "datetime", SimpleNamespace(now=lambda _zone: made()))
    return made


@pytest.fixture
def work(tmp_path: Path, clock: Clock, request: pytest.FixtureRequest) -> Iterator[Work]:
    made = Work(tmp_path, clock, getattr(request, "param", "3h"))
    made.generation.start()
    yield made
    made.generation.stop()
    assert made.generation.join(20)
    made.app.close()


def test_each_cycle_once_however_often_one_looks(work: Work, clock: Clock) -> None:
    begun = clock.shows.replace(microsecond=0)
    assert work.wait_for(1) == [begun]
    clock.shows += timedelta(hours=2, minutes=59)
    assert work.wait_for(1) == [begun]
    clock.shows += timedelta(minutes=1)
    assert work.wait_for(2) == [begun, begun + timedelta(hours=3)]


def test_an_alarm_that_is_lost_is_set_anew(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on processes, when its thread is to be started."""
    for module in (cycles, overdue):
        monkeypatch.setattr(module, "LOST_AFTER", 0.2)
    start, refused = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if thread.name.startswith("ThreadPoolExecutor") and not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    work = Work(tmp_path, clock, "3h")
    work.generation.start()
    assert work.wait_for(1) == [clock.shows.replace(microsecond=0)]
    assert refused
    assert work.pulse.silent() == []
    work.generation.stop()
    assert work.generation.join(20)
    work.app.close()


def test_captures_that_come_to_a_stand_are_noticed(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (cycles, overdue):
        monkeypatch.setattr(module, "LOST_AFTER", 0.2)
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if thread.name.startswith("ThreadPoolExecutor"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    work = Work(tmp_path, clock, "3h")
    work.generation.start()
    wait_until(lambda: work.pulse.silent() == ["captures:files"])
    work.generation.stop()
    assert work.generation.join(20)
    work.app.close()


@pytest.mark.parametrize("jump", [timedelta(hours=20), timedelta(days=365)])
def test_missed_cycles_become_one(work: Work, clock: Clock, jump: timedelta) -> None:
    """A machine that slept, or a clock that was set forward."""
    work.wait_for(1)
    clock.shows += jump
    assert work.wait_for(2)[1:] == [clock.shows.replace(microsecond=0)]


@pytest.mark.parametrize("jump", [timedelta(hours=2), timedelta(days=365)])
def test_a_clock_that_goes_back_makes_nobody_wait(
    work: Work, clock: Clock, jump: timedelta
) -> None:
    work.wait_for(1)
    clock.shows -= jump
    back = clock.shows.replace(microsecond=0)
    assert work.wait_for(2)[1:] == [back]
    clock.shows += timedelta(hours=3)
    assert work.wait_for(3)[2:] == [back + timedelta(hours=3)]


@pytest.mark.parametrize("work", ["30 2 * * *"], indirect=True)
def test_half_past_two_is_once_on_the_day_that_has_it_twice(work: Work, clock: Clock) -> None:
    work.wait_for(1)
    clock.shows = SUMMER_ENDS - timedelta(hours=20)
    before = len(work.wait_for(2))
    for minutes in range(0, 180, 15):
        clock.shows = SUMMER_ENDS + timedelta(minutes=minutes)
        work.settle()
    times = [t for t in work.captured()[before:] if t >= SUMMER_ENDS]
    assert times == [SUMMER_ENDS + timedelta(minutes=30)]


@pytest.mark.parametrize("work", ["30 2 * * *"], indirect=True)
def test_half_past_two_is_made_up_on_the_day_that_has_none(work: Work, clock: Clock) -> None:
    work.wait_for(1)
    clock.shows = SUMMER_BEGINS - timedelta(hours=20)
    work.wait_for(2)
    for minutes in range(0, 180, 15):
        clock.shows = SUMMER_BEGINS + timedelta(minutes=minutes)
        work.settle()
    times = [t for t in work.captured() if t >= SUMMER_BEGINS and t.year == 2026 and t.month == 3]
    assert times == [SUMMER_BEGINS + timedelta(minutes=90)]
