"""Sources beside each other: one that hangs keeps no other waiting, and one capture compares."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from audience_sync.app import now
from audience_sync.bootstrap import build
from audience_sync.config.load import load
from audience_sync.engines.duckdb import DuckDBEngine
from audience_sync.scheduler.generation import Generation
from audience_sync.scheduler.pulse import Pulse
from audience_sync.scheduler.slot import Slot, SlotWithdrawn
from audience_sync.standing.counters import Counters

HANGS = """
WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number)
SELECT n AS user_id FROM number WHERE n < 0
"""
"""Computes for ever, and gives no row."""

CONFIGURATION = """
[schedule]
every = "1s"
[sources.warehouse]
type = "sql"
url = "sqlite:///{folder}/warehouse.db"
timeout = "20s"
[sources.archive]
type = "sql"
url = "sqlite:///{folder}/warehouse.db"
[sources.files]
type = "files"
root = "."
[sources.exports]
type = "files"
root = "."
[destinations.calls]
type = "ndjson"
path = "calls.ndjson"
"""

AUDIENCE = """
[[audiences]]
name = "{name}"
source = "{source}"
query = '''{query}'''
destinations = ["calls"]
"""


class Work:
    def __init__(self, folder: Path, *audiences: tuple[str, str, str]) -> None:
        sqlite3.connect(folder / "warehouse.db").close()
        (folder / "vip.csv").write_text("user_id\nu1\nu2\n")
        text = CONFIGURATION.format(folder=folder) + "".join(
            AUDIENCE.format(name=name, source=source, query=query)
            for name, source, query in audiences
        )
        (folder / "config.toml").write_text(text)
        self.app = build(load([folder / "config.toml"], {}), writes=True)
        self.pulse = Pulse(time.monotonic)
        self.generation = Generation(
            self.app,
            slot=Slot(),
            pulse=self.pulse,
            clock=now,
            elapsed=time.monotonic,
            counters=Counters(),
        )

    @contextmanager
    def going_on(self) -> Iterator[None]:
        self.generation.start()
        try:
            yield
        finally:
            self.generation.stop()

    def captures(self, name: str) -> int:
        with self.app.database.read() as connection:
            return int(
                connection.exec_driver_sql(
                    "SELECT count(*) FROM run JOIN audience ON audience.id = audience_id "
                    f"WHERE run.kind = 'capture' AND audience.key = '{name}'"
                ).scalar_one()
            )


def wait_until(is_so: Callable[[], bool]) -> None:
    over = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < over
        time.sleep(0.05)


def test_a_source_that_hangs_keeps_no_other_waiting(tmp_path: Path) -> None:
    work = Work(
        tmp_path,
        ("stuck", "warehouse", HANGS),
        ("vip", "files", "FROM 'vip.csv'"),
        ("winback", "exports", "FROM 'vip.csv'"),
    )
    with work.going_on():
        wait_until(lambda: work.captures("vip") >= 2 and work.captures("winback") >= 2)
        assert work.captures("stuck") == 0
        assert not work.generation.join(0), "the hanging one is at work all the while"
    assert work.generation.join(30)
    work.app.close()


@pytest.fixture
def comparing(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many captures compared at once, one after another."""
    at_work, seen = [0], []
    compare = DuckDBEngine.compare

    @contextmanager
    def counted(engine: Any, *what: Any, **how: Any) -> Iterator[Any]:
        at_work[0] += 1
        seen.append(at_work[0])
        try:
            with compare(engine, *what, **how) as comparison:
                time.sleep(0.5)  # long enough for another to come
                yield comparison
        finally:
            at_work[0] -= 1

    monkeypatch.setattr(DuckDBEngine, "compare", counted)
    return seen


def test_one_capture_compares_at_a_time(tmp_path: Path, comparing: list[int]) -> None:
    """Sources are read beside each other; the memory is that of one."""
    work = Work(
        tmp_path,
        ("few", "warehouse", "SELECT 'u1' AS user_id"),
        ("many", "archive", "SELECT 'u2' AS user_id"),
        ("vip", "files", "FROM 'vip.csv'"),
    )
    with work.going_on():
        wait_until(lambda: min(map(work.captures, ("few", "many", "vip"))) >= 2)
    assert work.generation.join(20)
    work.app.close()
    assert set(comparing) == {1}
    assert len(comparing) >= 6


class TestSlot:
    def test_a_thread_that_has_it_goes_on(self) -> None:
        slot, stop = Slot(), threading.Event()
        with slot.taken(stop), slot.taken(stop):
            pass

    def test_others_wait_until_it_is_given_back(self) -> None:
        slot, stop, had = Slot(), threading.Event(), threading.Event()

        def other() -> None:
            with slot.taken(stop):
                had.set()

        thread = threading.Thread(target=other)
        with slot.taken(stop):
            thread.start()
            assert not had.wait(0.2)
        thread.join(10)
        assert had.is_set()

    def test_who_waits_when_we_stop_begins_nothing(self) -> None:
        slot, stop = Slot(), threading.Event()
        withdrawn: list[str] = []

        def other() -> None:
            try:
                with slot.taken(stop):
                    withdrawn.append("had it")
            except SlotWithdrawn:
                withdrawn.append("withdrawn")

        thread = threading.Thread(target=other)
        with slot.taken(stop):
            thread.start()
            stop.set()
            thread.join(10)
        assert withdrawn == ["withdrawn"]
        with pytest.raises(SlotWithdrawn), slot.taken(stop):
            pass
