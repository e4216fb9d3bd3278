"""A store of the first schema with all that a store had then, upgraded to the newest: everything
reads as it did, and the next runs go on where the last ones stopped. (P22)
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Column, MetaData, Table, func, insert, inspect, select, text

from audience_sync.domain.audience import AudienceKey, Seq
from audience_sync.domain.guard import Limits
from audience_sync.domain.quota import Lane
from audience_sync.errors import StoreFailed
from audience_sync.store import migrate, overview, schema
from audience_sync.store.destinations import Destinations
from audience_sync.store.engine import Database
from audience_sync.store.history import Histories
from audience_sync.store.installation import installation_of
from audience_sync.store.rejections import Rejections
from audience_sync.store.snapshots import Snapshots
from audience_sync.store.spans import Spans
from tests.fakes.snapshot_log import START, VIP, Clock, Log, execute, new_lease, people
from tests.fakes.teller import Teller

FIRST = "0001"
OLD, NEW = AudienceKey("old"), AudienceKey("new")
EVERYBODY = ["a", "B", "c", "d", "é", "f", "𝔸"]
Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture
def lived(sqlite_url: str) -> Iterator[Database]:
    """A store of today in which nobody used what came after the first schema."""
    database = Database(sqlite_url)
    installation_of(database, START, writes=True)
    for key in (OLD, VIP, NEW):
        _live(Log(database, key=key, clock=Clock()))
    lease = new_lease(database, "deliver:crisp:initial")
    book = Destinations(database, lambda: START)
    book.settle("crisp", "https://api.crisp.chat")
    book.pause("crisp", "down", 600, lease)
    run = book.start_run("crisp", Lane.INITIAL, lease)
    book.end_run(run, "failed", {"accepted": 1}, "down", lease)
    yield database
    database.close()


def _live(log: Log) -> None:
    """Captures, a held one, and deliveries: whole, with rejections, in the middle, and held."""
    log.put(people(*EVERYBODY[:5]))
    crisp, segment = Teller(log), Teller(log, to="segment")
    crisp.run(refuse=["c", "é"])  # who do not change: no span takes them up
    if log.key == OLD:
        segment.run(refuse=["a"], outcome="skipped")
    log.put(people(*EVERYBODY[1:]))
    log.put(people(*EVERYBODY[2:]), base=True)
    span = crisp.open()
    assert span is not None
    crisp.walk(span, members=1)
    if log.key == VIP:
        first = segment.open()
        assert first is not None
        segment.walk(first, members=2, refuse=["c"])
    if log.key == NEW:
        segment.limits = Limits(max_initial=2)
        segment.open()
    log.hold(people("z"))


@pytest.fixture
def first(empty_url: str, lived: Database) -> Iterator[Database]:
    """The same, as the first version would have it, on either database."""
    database = Database(empty_url)
    with database.write() as connection:
        config = Config()
        config.set_main_option("script_location", str(migrate.scripts()))
        config.attributes["connection"] = connection
        command.upgrade(config, FIRST)
    _fill(database, _rows(lived, _tables(database)))
    execute(database, "UPDATE lease SET expires_at = 0")
    yield database
    database.close()


def _tables(database: Database) -> list[Table]:
    """Those of the first schema, with its columns only."""
    with database.read() as connection:
        look = inspect(connection)
        names = {
            name: {c["name"] for c in look.get_columns(name)} for name in look.get_table_names()
        }
    known = [table for table in schema.metadata.sorted_tables if table.name in names]
    return [
        Table(t.name, MetaData(), *(Column(c.name, c.type) for c in t.c if c.name in names[t.name]))
        for t in known
    ]


def _rows(database: Database, tables: list[Table]) -> Rows:
    with database.read() as connection:
        return {t.name: [dict(r) for r in connection.execute(select(t)).mappings()] for t in tables}


def _fill(database: Database, rows: Rows) -> None:
    with database.write() as connection:
        for table in _tables(database):
            if rows[table.name]:
                connection.execute(insert(table), rows[table.name])
            if not database.is_sqlite and "id" in table.c:
                last = connection.scalar(select(func.max(table.c.id)))
                sequence = text("SELECT setval(pg_get_serial_sequence(:t, 'id'), :last)")
                connection.execute(sequence, {"t": table.name, "last": last})


def _read(database: Database) -> dict[str, Any]:
    """All that the program says of a store."""
    snapshots, spans = Snapshots(database, Clock()), Spans(database, Clock())
    books = Destinations(database, Clock())
    said: dict[str, Any] = {
        "installation": installation_of(database, START, writes=False),
        "audiences": overview.audiences(database),
        "deliveries": sorted(overview.deliveries(database), key=repr),
        "resyncs": overview.resyncs(database),
        "held": [snapshots.held(), spans.held()],
        "rejections": list(Rejections(database).unresolved([OLD, VIP, NEW], ["crisp", "segment"])),
        "paused": {name: books.paused(name) for name in ("crisp", "segment")},
    }
    for key in (OLD, VIP, NEW):
        current = snapshots.current(key)
        assert current is not None
        ways = combinations(range(current.seq + 1), 2)
        said |= {
            f"{key} now": current,
            f"{key} due": (snapshots.last_captured(key), snapshots.next_due(key)),
            f"{key} net": [list(spans.net(key, Seq(a), Seq(b))) for a, b in ways],
            f"{key} sizes": list(Histories(database).sizes(key)),
        }
    for name in ("crisp", "segment"):
        walked = spans.unfinished(name)
        said |= {
            f"{name} spans": walked,
            f"{name} untold": [list(spans.changes(span)) for span in walked],
            f"{name} waits": spans.waiting(name, [OLD, VIP, NEW]),
            f"{name} told": [spans.told_seq(name, key) for key in (OLD, VIP, NEW)],
        }
    return said


def test_everything_reads_the_same(first: Database, lived: Database) -> None:
    before = _read(lived)
    assert [len(before[what]) for what in ("rejections", "crisp spans", "held")] == [8, 3, 2]
    assert all(before[f"{name} untold"] for name in ("crisp", "segment"))
    old_rows = _rows(first, _tables(first))
    tables = _tables(first)
    assert migrate.version(first) == FIRST
    assert migrate.upgrade(first)
    assert migrate.version(first) == migrate.HEAD
    assert _rows(first, tables) == old_rows, "a row was changed or lost"
    after = _read(first)
    for what, value in before.items():
        assert after[what] == value, what


def test_the_next_runs_go_on(first: Database) -> None:
    """Every table takes new rows, and those who stood rejected are told again."""
    migrate.upgrade(first)
    log = Log(first, clock=Clock())
    log.clock.now = START.replace(hour=20)
    log.kept = {0: {}, 1: people(*EVERYBODY[:5]), 2: people(*EVERYBODY[1:])}
    log.kept[3] = people(*EVERYBODY[2:])
    for name in ("crisp", "segment"):
        teller = Teller(log, to=name)
        assert teller.retry() > 0
        for _ in range(3):
            teller.run()
        assert teller.stand() == []
        assert log.spans.told_seq(name, VIP) == 3
    log.put(people("a", "f"))
    assert teller.run() == ["+a", "-c", "-d", "-é", "-𝔸"]


def test_a_migration_that_fails_leaves_the_store_as_it_was(first: Database) -> None:
    tables = _tables(first)
    before = _rows(first, tables)
    execute(first, "CREATE TABLE forgotten (other INTEGER)")
    with pytest.raises(StoreFailed):
        migrate.upgrade(first)
    assert migrate.version(first) == FIRST
    execute(first, "DROP TABLE forgotten")
    assert [list(t.c.keys()) for t in _tables(first)] == [list(t.c.keys()) for t in tables]
    assert _rows(first, tables) == before
    assert migrate.upgrade(first)


def test_what_it_is_tried_on_is_of_the_first_schema(first: Database, tmp_path: Path) -> None:
    columns = {table.name: set(table.c.keys()) for table in _tables(first)}
    assert "retired_at" not in columns["audience"]
    assert {"gone", "resync", "forgotten"}.isdisjoint(columns)
    assert all(len(rows) > 0 for name, rows in _rows(first, _tables(first)).items()), (
        "all have rows"
    )
