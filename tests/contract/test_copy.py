"""A store copied whole: between SQLite and PostgreSQL in both directions, or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from audience_sync.domain.audience import AudienceKey, Tell
from audience_sync.domain.contact import Contact, Listing, Person
from audience_sync.domain.guard import Limits
from audience_sync.domain.span import Refusal, Tally
from audience_sync.errors import ChunkDamaged, LeaseTaken, StoreFailed, StoreTooNew, UsageError
from audience_sync.store import contacts, migrate, schema
from audience_sync.store import copy as module
from audience_sync.store.copy import copy
from audience_sync.store.engine import Database
from audience_sync.store.forget import Forgetting, Order
from audience_sync.store.ids import destination_id
from audience_sync.store.installation import installation_of
from audience_sync.store.leases import Leases
from audience_sync.store.orders import Given
from tests.fakes.snapshot_log import START, Clock, Log, execute, new_lease, people, scalar

TOP = Path(__file__).parents[2]
OLD = AudienceKey("old_hands")
NAMES = [table.name for table in schema.metadata.sorted_tables if table.name != "lease"]


@pytest.fixture
def target(empty_url: str) -> Iterator[Database]:
    opened = Database(empty_url)
    yield opened
    opened.close()


def filled(database: Database) -> Log:
    """Something in every table that there is something for."""
    installation_of(database, START)
    log, old = Log(database), Log(database, OLD)
    log.put(people("a", "b", "é", "𝔸"))
    log.put(people("a", "c"))
    log.put(people("a", "c", "d"), base=True)
    log.hold({})
    old.put(people(*(f"u{n:05}" for n in range(1_200))))
    lane = new_lease(database)
    for to in ("crisp", "segment"):
        (waiting,) = log.spans.waiting(to, [log.key])
        span = log.spans.open(waiting, to, tell=frozenset(Tell), limits=Limits(), lease=lane)
        assert span is not None
        tally = Tally(last_user_id="c", accepted=1, rejected=[Refusal(user_id="c", reason="no")])
        span = log.spans.advance(span, span.books.add(tally), tally, lane)
        if to == "segment":
            log.spans.complete(span, lane)
    met = Contact(user_id="é", people_id="p-1", email="é@example.com", as_of=START, profile="")
    with database.write(lane) as connection:
        contacts.put(connection, destination_id(connection, "crisp"), [met])
    pages = Listing(page=2, is_complete=False, began_at=START)
    listed = [Person(email="other@example.com", people_id="p-2")]
    contacts.Contacts(database, "crisp").keep_page(listed, pages)
    execute(database, "UPDATE lease SET expires_at = 0")
    order = Order(user_ids=["gone"], given=Given(actor="ann@ops", reason="request 12"))
    Forgetting(database, Leases(database), Clock()).forget(order)
    return log


def rows(database: Database) -> dict[str, list[dict[str, Any]]]:
    with database.read() as connection:
        return {
            name: [
                {key: bytes(v) if isinstance(v, memoryview) else v for key, v in row.items()}
                for row in connection.execute(
                    select(table).order_by(*table.primary_key.columns)
                ).mappings()
            ]
            for name in NAMES
            for table in [schema.metadata.tables[name]]
        }


class TestCopy:
    def test_everything_arrives(self, database: Database, target: Database) -> None:
        filled(database)
        assert copy(database, target) == {"vip": 3, OLD: 1_200}
        there = rows(database)
        assert rows(target) == there
        empty = {name for name in NAMES if not there[name]}
        assert not empty & {"installation", "audience", "destination", "snapshot", "chunk", "span"}
        assert not empty & {"told", "rejection", "forgotten", "run"}
        assert not empty & {"contact", "person", "listing"}
        assert migrate.version(target) == migrate.HEAD

    def test_the_copy_goes_on(self, database: Database, target: Database) -> None:
        """Numbers go on where they were, and the log takes up where it stood."""
        log = filled(database)
        copy(database, target)
        before = rows(target)
        on = Log(target, kept=log.kept)
        on.put(people("z"))
        assert on.net(3, 4) == on.difference(3, 4)
        assert on.members(4) == people("z")
        (span,) = on.spans.unfinished("crisp")
        assert [change.user_id for change in on.spans.changes(span)] == ["d"]
        for name in ("snapshot", "run"):
            ids = [row["id"] for row in rows(target)[name]]
            assert ids[: len(before[name])] == [row["id"] for row in before[name]]
            assert max(ids) == max(row["id"] for row in before[name]) + 1
        assert installation_of(target, START) == installation_of(database, START)

    def test_a_table_without_rows_begins_at_one(self, database: Database, target: Database) -> None:
        installation_of(database, START)
        assert copy(database, target) == {}
        Log(target).put(people("a"))
        assert scalar(target, "SELECT id FROM snapshot") == 1

    def test_a_store_that_was_only_made_can_be_filled(
        self, database: Database, target: Database
    ) -> None:
        filled(database)
        migrate.upgrade(target)
        assert copy(database, target)[OLD] == 1_200


class TestRefused:
    def test_where_there_is_a_store(self, database: Database, target: Database) -> None:
        filled(database)
        migrate.upgrade(target)
        installation_of(target, START)
        before = rows(target)
        with pytest.raises(UsageError, match="already"):
            copy(database, target)
        assert rows(target) == before

    def test_onto_itself(self, store_url: str, database: Database) -> None:
        filled(database)
        again = Database(store_url)
        with pytest.raises(UsageError, match="already"):
            copy(database, again)
        again.close()

    def test_where_other_tables_have_our_names(self, database: Database, target: Database) -> None:
        filled(database)
        with target.write() as connection:
            connection.exec_driver_sql("CREATE TABLE audience (name TEXT)")
            connection.exec_driver_sql("CREATE TABLE other (name TEXT)")
        with pytest.raises(UsageError, match=r"not ours: audience$"):
            copy(database, target)

    def test_nothing_to_copy(self, target: Database, tmp_path: Path) -> None:
        nowhere = Database(f"sqlite:///{tmp_path / 'nowhere.db'}")
        with pytest.raises(UsageError, match="no store to copy"):
            copy(nowhere, target)
        assert not (tmp_path / "nowhere.db").exists()
        nowhere.close()

    def test_another_version(self, database: Database, target: Database) -> None:
        filled(database)
        migrate.upgrade(target)
        execute(target, "UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(StoreTooNew):
            copy(database, target)

    @pytest.mark.parametrize("name", ["capture:vip", "capture:new", "deliver:crisp:incremental"])
    def test_while_somebody_is_at_work(
        self, database: Database, target: Database, name: str
    ) -> None:
        filled(database)
        Leases(database).acquire(name)
        with pytest.raises(LeaseTaken, match=name) as taken:
            copy(database, target)
        assert "nothing was changed" in str(taken.value.hint)
        assert migrate.version(target) is None
        execute(database, "UPDATE lease SET expires_at = 0")
        copy(database, target)
        Leases(database).acquire(name)


class TestBroken:
    def test_killed_in_the_middle_it_is_empty(
        self, database: Database, store_url: str, target: Database, empty_url: str
    ) -> None:
        filled(database)
        done = subprocess.run(
            [sys.executable, "-m", "tests.fakes.store_process", store_url, "copy", empty_url],
            cwd=TOP,
            env={**os.environ, "PYTHONPATH": str(TOP)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not any(rows(target).values())
        assert copy(database, target)[OLD] == 1_200
        assert rows(target) == rows(database)

    def test_a_damaged_chunk_is_not_carried_on(self, database: Database, target: Database) -> None:
        filled(database)
        damage = "zeroblob(9)" if database.is_sqlite else "CAST('nonsense' AS bytea)"
        execute(database, f"UPDATE chunk SET payload = {damage} WHERE first_user_id = 'u00000'")
        with pytest.raises(ChunkDamaged):
            copy(database, target)
        assert not any(rows(target).values())

    def test_what_reads_otherwise_is_taken_away(
        self, database: Database, target: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        filled(database)
        monkeypatch.setattr(module, "_same", lambda there, here: there.members != 3)
        with pytest.raises(StoreFailed, match="vip does not read the same"):
            copy(database, target)
        assert not any(rows(target).values())

    def test_the_same_is_seen_row_by_row(self, database: Database, target: Database) -> None:
        for store, second in ((database, "b"), (target, "c")):
            migrate.upgrade(store)
            Log(store).put(people("a", second))
        there, here = (module._newest(store, AudienceKey("vip")) for store in (database, target))
        assert there is not None
        assert here is not None
        assert module._same(there, there)
        assert not module._same(there, here)
