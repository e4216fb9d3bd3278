"""The store's database, on SQLite and PostgreSQL: transactions, order of bytes, silence."""

from __future__ import annotations

import logging
import threading

import pyarrow as pa
import pytest
from sqlalchemy import Executable, insert, select, text
from sqlalchemy.exc import SQLAlchemyError

from audience_sync.domain.audience import AudienceKey, Kind, Seq, Tell
from audience_sync.domain.guard import Limits
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import SpanKind
from audience_sync.errors import ConfigError, StoreFailed, UsageError
from audience_sync.pipeline.ports.delivering import Waiting
from audience_sync.store import chunks, ids
from audience_sync.store.destinations import Destinations
from audience_sync.store.engine import Database
from audience_sync.store.installation import Installation, installation_of
from audience_sync.store.schema import destination, installation, rejection
from tests.fakes.snapshot_log import (
    HOUR,
    START,
    Clock,
    Log,
    column,
    execute,
    new_lease,
    people,
    scalar,
)

STRANGE = ["\uffdc", "a", "𝔸", "z", "B", "é", "aa", "Z", "ab", "\u00e9\u0301", "10", "9", "a b"]
SECRET_ID = "u42-private"
SECRET_MAIL = "jane.roe@example.com"


class TestTransactions:
    def test_all_or_nothing(self, database: Database) -> None:
        def killed() -> None:
            with database.write() as connection:
                connection.execute(insert(destination).values(name="crisp"))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            killed()
        assert column(database, "SELECT name FROM destination") == []
        with database.write() as connection:
            connection.execute(insert(destination).values(name="crisp"))
        assert column(database, "SELECT name FROM destination") == ["crisp"]

    def test_others_see_it_after_the_commit(self, database: Database, store_url: str) -> None:
        other = Database(store_url)
        with database.write() as connection:
            connection.execute(insert(destination).values(name="crisp"))
            assert column(other, "SELECT name FROM destination") == []
        assert column(other, "SELECT name FROM destination") == ["crisp"]
        other.close()

    def test_times_come_back_in_utc(self, database: Database) -> None:
        log = Log(database)
        log.put(people("a"))
        captured = log.snapshots.last_captured(log.key)
        assert captured == START
        assert captured is not None
        assert captured.utcoffset() == START.utcoffset()


class TestByteOrder:
    def test_the_database_sorts_and_compares_by_utf8_bytes(self, database: Database) -> None:
        log = Log(database)
        log.put(people("a"))
        waiting = Waiting(
            audience=log.key, kind=SpanKind.INITIAL, told_seq=None, to_seq=Seq(1), members=1
        )
        span = log.spans.open(
            waiting,
            "crisp",
            tell=frozenset(Tell),
            limits=Limits(),
            lease=new_lease(database),
        )
        rows = [
            {
                "span_id": span.id,
                "user_id": user_id,
                "outcome": "skipped",
                "reason": "r",
                "recorded_at": START,
            }
            for user_id in STRANGE
        ]
        expected = sorted(STRANGE, key=str.encode)
        assert expected == sorted(STRANGE)
        user_id = rejection.c.user_id
        with database.write() as connection:
            connection.execute(insert(rejection), rows)
            by_database = connection.scalars(select(user_id).order_by(user_id)).all()
            after = connection.scalars(select(user_id).where(user_id > "é").order_by(user_id)).all()
        assert by_database == expected
        assert after == expected[expected.index("é") + 1 :]

    def test_arrow_sorts_the_same(self) -> None:
        ordered = pa.record_batch({"user_id": sorted(STRANGE)})
        chunks._check_order(ordered, None)
        for left, right in zip(sorted(STRANGE), sorted(STRANGE)[1:], strict=False):
            with pytest.raises(ValueError, match="not sorted"):
                chunks._check_order(pa.record_batch({"user_id": [right, left]}), None)

    def test_a_walk_over_strange_ids_can_stop_anywhere(self, database: Database) -> None:
        log = Log(database, rows_per_chunk=3)
        log.put(people(*STRANGE))
        whole = [c.user_id for c in log.net(0, 1)]
        assert whole == sorted(STRANGE, key=str.encode)
        for n, position in enumerate(whole, start=1):
            rest = log.spans.net(log.key, Seq(0), Seq(1), after=position)
            assert [c.user_id for c in rest if c.user_id > position] == whole[n:]

    def test_positions_come_back_exactly(self, database: Database) -> None:
        log = Log(database)
        log.put(people(*STRANGE))
        first, last = (
            column(database, f"SELECT {side}_user_id FROM chunk ORDER BY ordinal")
            for side in ("first", "last")
        )
        ordered = sorted(STRANGE, key=str.encode)
        assert first == ordered[::2]
        assert last == [*ordered[1::2], ordered[-1]]


class TestSilence:
    """No id and no e-mail in an error or a log line (P17)."""

    @pytest.fixture(autouse=True)
    def hear_everything(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)

    def refuse(self, database: Database, statement: Executable, rows: object) -> StoreFailed:
        with pytest.raises(StoreFailed) as failed, database.write() as connection:
            connection.execute(statement, rows)  # type: ignore[call-overload]
        return failed.value

    def test_not_even_in_the_errors_of_sqlalchemy(self, database: Database) -> None:
        """Whatever is logged or raised past our own errors."""
        statement = text("INSERT INTO nowhere VALUES (:id, :mail)")
        row = {"id": SECRET_ID, "mail": SECRET_MAIL}
        with pytest.raises(SQLAlchemyError) as failed, database._engine.begin() as connection:
            connection.execute(statement, row)
        assert "nowhere" in str(failed.value)
        assert SECRET_ID not in str(failed.value)
        assert SECRET_MAIL not in str(failed.value)

    def test_a_refused_row_is_not_shown(
        self, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        row = {"reason": SECRET_MAIL, "user_id": SECRET_ID, "outcome": "rejected"}
        refused = {**row, "span_id": 99, "recorded_at": START}
        self.assert_silent(self.refuse(database, insert(rejection), refused), caplog)

    def test_a_row_that_is_there_already_is_not_shown(
        self, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        """PostgreSQL's detail line shows the key."""
        execute(database, "CREATE UNIQUE INDEX once ON destination (name, paused_reason)")
        row = {"name": SECRET_ID, "paused_reason": SECRET_MAIL}
        try:
            error = self.refuse(database, insert(destination), [row, row])
        finally:
            execute(database, "DROP INDEX once")
        self.assert_silent(error, caplog)

    def test_a_value_that_cannot_be_stored_is_not_shown(
        self, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        """PostgreSQL's own sentence shows it."""
        statement = text("INSERT INTO destination (id, name) VALUES (:id, :name)")
        row = {"id": f"no number {SECRET_ID}", "name": SECRET_MAIL}
        self.assert_silent(self.refuse(database, statement, row), caplog)

    def assert_silent(self, error: StoreFailed, caplog: pytest.LogCaptureFixture) -> None:
        said = f"{error} {error.hint} {error!r} {error.__cause__} {caplog.text}"
        assert error.__suppress_context__
        assert SECRET_ID not in said
        assert SECRET_MAIL not in said
        assert error.exit_code == 74


class TestNames:
    def test_an_audience_keeps_its_row(self, database: Database) -> None:
        key = AudienceKey("vip")
        with pytest.raises(UsageError, match="vip"), database.read() as connection:
            ids.known_audience_id(connection, key)
        with database.write() as connection:
            made = ids.audience_id(connection, key, "VIP", Kind.AUDIENCE)
            again = ids.audience_id(connection, key, "Very important", Kind.AUDIENCE)
            assert made == again == ids.known_audience_id(connection, key)
            crisp = ids.destination_id(connection, "crisp")
            assert crisp == ids.destination_id(connection, "crisp")
            assert crisp != ids.destination_id(connection, "segment")

    def test_a_key_stays_what_it_was_captured_as(self, database: Database) -> None:
        log = Log(database)
        first = log.stage(people("a"))
        with database.write() as connection:
            # Not captured yet: whoever mistook the one for the other may still mend it.
            ids.audience_id(connection, log.key, "VIP", Kind.COMPUTED_TRAIT)
        assert scalar(database, "SELECT kind FROM audience") == "trait"
        log.snapshots.commit(first, log.lease, started_at=START)
        with database.write() as connection:
            ids.audience_id(connection, log.key, "VIP", Kind.COMPUTED_TRAIT)
        with (
            pytest.raises(
                ConfigError, match="audience vip: this key was captured as a computed trait"
            ),
            database.write() as connection,
        ):
            ids.audience_id(connection, log.key, "VIP", Kind.AUDIENCE)
        assert scalar(database, "SELECT kind FROM audience") == "trait"

    def test_whoever_comes_second_finds_what_the_first_made(
        self, database: Database, store_url: str
    ) -> None:
        """Two first starts at once: both looked before either had written."""
        other = Database(store_url)
        found: list[object] = []

        def second() -> None:
            found.append(installation_of(other, START).key)
            with other.write() as connection:
                found.append(ids.destination_id(connection, "crisp"))
                found.append(ids.audience_id(connection, AudienceKey("vip"), "VIP", Kind.AUDIENCE))

        for table in ("installation", "destination", "audience"):
            assert scalar(database, f"SELECT count(*) FROM {table}") == 0
        thread = threading.Thread(target=second)
        with database.write() as connection:
            connection.execute(
                insert(installation).values(id=1, key="first", secret="s", created_at=START)
            )
            made = ids.destination_id(connection, "crisp")
            known = ids.audience_id(connection, AudienceKey("vip"), "VIP", Kind.AUDIENCE)
            thread.start()
            thread.join(0.3)
            assert found == []
        thread.join(10)
        other.close()
        assert found == ["first", made, known]

    def test_lanes_that_start_at_once_make_one_destination(
        self, database: Database, store_url: str
    ) -> None:
        other = Database(store_url)
        found: list[int] = []

        def second() -> None:
            with other.write() as connection:
                found.append(ids.destination_id(connection, "crisp"))

        thread = threading.Thread(target=second)
        with database.write() as connection:
            made = ids.destination_id(connection, "crisp")
            thread.start()
            thread.join(0.3)
        thread.join(10)
        other.close()
        assert found == [made]

    def test_the_installation_is_made_once(self, database: Database) -> None:
        made = installation_of(database, START)
        assert isinstance(made, Installation)
        assert installation_of(database, START + HOUR) == made
        assert len(made.secret) == 64


class TestDestinations:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def book(self, database: Database, clock: Clock) -> Destinations:
        return Destinations(database, clock)

    def test_a_pause_that_is_renewed_keeps_its_beginning(
        self, database: Database, book: Destinations, clock: Clock
    ) -> None:
        lease = new_lease(database)
        assert book.paused("crisp") is None
        book.pause("crisp", "key refused", 0, lease)
        clock.now += HOUR
        book.pause("crisp", "over quota", 60, lease)
        pause = book.paused("crisp")
        assert pause is not None
        assert (pause.reason, pause.since) == ("over quota", START)
        assert pause.until is not None
        assert (pause.until - clock.now).total_seconds() == 60
        assert book.paused("segment") is None
        book.resume("crisp", lease)
        assert book.paused("crisp") is None

    def test_a_run_that_never_ended_was_killed(
        self, database: Database, book: Destinations
    ) -> None:
        lease = new_lease(database)
        ended = book.start_run("crisp", Lane.INITIAL, lease)
        book.end_run(ended, "completed", {"accepted": 3}, None, lease)
        book.start_run("crisp", Lane.INITIAL, lease)
        book.start_run("crisp", Lane.INCREMENTAL, lease)
        book.start_run("crisp", Lane.INITIAL, lease)
        assert column(database, "SELECT outcome FROM run ORDER BY id") == [
            "completed",
            "killed",
            "running",
            "running",
        ]
