"""Forgetting users on both databases: no trace is left, and what is read still adds up (P21)."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from audience_sync.domain.audience import AudienceKey, Seq, Tell
from audience_sync.domain.forgotten import reference
from audience_sync.domain.guard import Limits
from audience_sync.domain.span import Refusal, Span, Tally
from audience_sync.errors import ChunkDamaged, LeaseTaken, StoreFailed, UsageError
from audience_sync.store import chunks
from audience_sync.store.engine import Database
from audience_sync.store.forget import Forgetting, Order
from audience_sync.store.forgotten import forgotten
from audience_sync.store.installation import installation_of
from audience_sync.store.leases import Leases
from audience_sync.store.orders import Given, Orders
from audience_sync.store.survey import Survey
from audience_sync.store.traces import Traces
from tests.fakes.snapshot_log import START, Clock, Log, column, execute, new_lease, people, scalar

TOP = Path(__file__).parents[2]
ALL = frozenset(Tell)
WHO = "person-7f3a"
CROWD = ["a", "b", "c", "d", WHO, "z"]
OLD_HANDS = AudienceKey("old_hands")


@pytest.fixture
def log(database: Database) -> Log:
    installation_of(database, START)
    return Log(database)


def forget(log: Log, *user_ids: str, **other: Any) -> Traces:
    """With every lease free, as when nothing is at work; the log may go on after it."""
    execute(log.database, "UPDATE lease SET expires_at = 0")
    order = Order(user_ids=user_ids or (WHO,), given=Given(actor="ann@ops", **other))
    traces = Forgetting(log.database, Leases(log.database), Clock()).forget(order)
    log.lease = new_lease(log.database, f"capture:{log.key}")
    log.kept = {
        seq: {u: row for u, row in kept.items() if u not in order.user_ids}
        for seq, kept in log.kept.items()
    }
    return traces


def opened(log: Log, to: str = "crisp", **other: Any) -> Span:
    (waiting,) = log.spans.waiting(to, [log.key])
    lane = new_lease(log.database, f"deliver:{to}:initial")
    how: dict[str, Any] = {"tell": ALL, "limits": Limits()}
    span = log.spans.open(waiting, to, lease=lane, **(how | other))
    assert span is not None
    return span


def advanced(log: Log, span: Span, to: str, *rejected: str) -> Span:
    walked = [c.user_id for c in log.spans.changes(span) if c.user_id <= to]
    tally = Tally(last_user_id=to, accepted=len(walked) - len(rejected))
    tally.rejected += [Refusal(user_id=user_id, reason="no") for user_id in rejected]
    lane = new_lease(log.database, f"deliver:{span.destination}:initial")
    return log.spans.advance(span, span.books.add(tally), tally, lane)


def stored(log: Log, span: Span) -> Span:
    (found,) = [s for s in log.spans.unfinished(span.destination) if s.id == span.id]
    return found


def walked(log: Log, span: Span) -> list[str]:
    return [change.user_id for change in log.spans.changes(stored(log, span))]


def counts(log: Log) -> list[tuple[int, ...]]:
    with log.database.read() as connection:
        sql = "SELECT previous, entered, exited, updated, members FROM snapshot ORDER BY id"
        return [tuple(row) for row in connection.exec_driver_sql(sql)]


class TestLog:
    def test_the_log_is_what_it_would_be_without_the_user(self, log: Log) -> None:
        log.put(people(*CROWD))
        log.put(people("a", "b", WHO, "z"))
        log.put(people("a", "b", WHO, "z") | {WHO: {"email": "new@example.com"}}, base=True)
        log.put(people("a", "z", "zz"))
        log.put(people("a", WHO))
        forget(log)
        for seq in range(1, 6):
            assert log.members(seq) == log.kept[seq]
            for later in range(seq, 6):
                assert log.net(seq, later) == log.difference(seq, later)
        assert counts(log) == [
            (0, 5, 0, 0, 5),
            (5, 0, 2, 0, 3),
            (3, 0, 0, 0, 3),
            (3, 1, 1, 0, 3),
            (3, 0, 2, 0, 1),
        ]
        found = log.snapshots.membership(log.key, Seq(5))
        assert found.members == 1
        parts = [found.base, *found.changes]
        assert [sum(batch.num_rows for batch in part()) for part in parts] == [3, 2, 2]

    def test_chunks_say_where_they_begin_and_end_now(self, log: Log) -> None:
        log.rows_per_chunk = 3
        log.put(people("a", "b", WHO, f"{WHO}1", "x", "y", "z"))
        forget(log, WHO, f"{WHO}1", "z")
        with log.database.read() as connection:
            rows = connection.exec_driver_sql(
                "SELECT rows, first_user_id, last_user_id FROM chunk ORDER BY ordinal"
            )
            assert [tuple(row) for row in rows] == [(2, "a", "b"), (2, "x", "y")]

    def test_a_chunk_of_nobody_else_is_gone(self, log: Log) -> None:
        log.rows_per_chunk = 1
        log.put(people(*CROWD))
        log.put(people("a", "b", "c", "d", "z"))
        forget(log)
        assert scalar(log.database, "SELECT count(*) FROM chunk") == 5
        assert log.net(1, 2) == []
        log.put(people("a"))
        assert log.members(3) == people("a")

    def test_the_only_member_leaves_an_empty_audience(self, log: Log) -> None:
        log.put(people(WHO))
        forget(log)
        assert log.members(1) == {}
        assert counts(log) == [(0, 0, 0, 0, 0)]
        log.put(people("a"))
        assert log.members(2) == people("a")

    @pytest.mark.parametrize("was_in", [True, False])
    def test_counts_add_up_where_changes_are_no_longer_kept(self, log: Log, was_in: bool) -> None:
        """Of the oldest base nobody can tell who had just entered."""
        log.put(people("a", *([WHO] if was_in else [])))
        log.put(people("b", WHO), base=True)
        log.snapshots.prune(log.key, log.clock.now, log.lease)
        forget(log)
        assert log.members(2) == people("b")
        previous, entered, exited, _, members = counts(log)[1]
        assert previous + entered - exited == members == 1

    def test_nobody_before_means_that_the_user_entered(self, log: Log) -> None:
        log.put({})
        log.put(people("b", WHO), base=True)
        log.snapshots.prune(log.key, log.clock.now, log.lease)
        forget(log)
        assert counts(log)[1] == (0, 1, 0, 0, 1)

    def test_held_captures_forget_too(self, log: Log) -> None:
        log.put(people("a", WHO))
        held = log.hold(people(WHO, "c"))
        forget(log)
        assert counts(log) == [(0, 1, 0, 0, 1), (1, 1, 1, 0, 1)]
        log.approve(held, people("c"))
        assert log.members(2) == people("c")
        assert log.net(1, 2) == log.difference(1, 2)

    def test_a_held_exit_of_the_user_is_no_longer_one(self, log: Log) -> None:
        log.put(people("a", WHO, "z"))
        held = log.hold(people("a"))
        forget(log)
        log.approve(held, people("a"))
        assert log.members(2) == people("a")
        assert counts(log)[1] == (2, 0, 1, 0, 1)

    def test_what_a_killed_capture_staged_is_swept(self, log: Log) -> None:
        log.put(people("a"))
        log.stage(people("a", WHO))
        forget(log)
        assert column(log.database, "SELECT state FROM snapshot") == ["current"]
        assert scalar(log.database, "SELECT count(*) FROM chunk") == 1

    def test_other_audiences_of_the_user_too_and_others_not(self, log: Log) -> None:
        other, third = Log(log.database, OLD_HANDS), Log(log.database, AudienceKey("third"))
        for one in (log, other):
            one.put(people(*CROWD))
        third.put(people("x", "z"))
        before = column(log.database, "SELECT payload FROM chunk WHERE first_user_id = 'x'")
        traces = forget(log)
        assert traces.audiences_of(WHO) == [OLD_HANDS, log.key]
        assert other.members(1) == people("a", "b", "c", "d", "z")
        assert before == column(log.database, "SELECT payload FROM chunk WHERE first_user_id = 'x'")

    def test_a_damaged_chunk_leaves_everything_as_it_was(self, log: Log) -> None:
        log.put(people(*CROWD))
        damage = "zeroblob(9)" if log.database.is_sqlite else "CAST('nonsense' AS bytea)"
        execute(log.database, f"UPDATE chunk SET payload = {damage}")
        with pytest.raises(ChunkDamaged):
            forget(log)
        assert forgotten(log.database) is None


class TestSpans:
    def test_a_change_still_to_be_told_leaves_the_total(self, log: Log) -> None:
        log.put(people(*CROWD))
        span = advanced(log, opened(log), "b")
        forget(log)
        after = stored(log, span)
        assert (after.books.total, after.books.accepted, after.position) == (5, 2, "b")
        assert walked(log, span) == ["c", "d", "z"]

    def test_one_that_was_handled_stays_in_the_books(self, log: Log) -> None:
        log.put(people(*CROWD))
        span = advanced(log, opened(log), "z", WHO)
        forget(log)
        assert stored(log, span).books == span.books
        assert scalar(log.database, "SELECT count(*) FROM rejection") == 0

    def test_a_position_at_the_user_becomes_the_one_before(self, log: Log) -> None:
        log.put(people(*CROWD))
        span = advanced(log, opened(log), WHO)
        forget(log, WHO, "d", "nobody")
        after = stored(log, span)
        assert (after.position, after.books) == ("c", span.books)
        assert walked(log, span) == ["z"]

    def test_a_position_at_the_first_user_becomes_none(self, log: Log) -> None:
        log.put(people(*CROWD))
        span = advanced(log, opened(log), "b")
        forget(log, "a", "b")
        assert stored(log, span).position is None
        assert walked(log, span) == ["c", "d", WHO, "z"]
        assert stored(log, span).books == span.books

    def test_the_position_of_an_ended_span_too(self, log: Log) -> None:
        log.put(people(*CROWD))
        span = advanced(log, opened(log), "z")
        log.spans.complete(span, new_lease(log.database))
        log.put(people(*CROWD, "zz"))
        log.put(people(*CROWD))
        forget(log, "z")
        assert column(log.database, "SELECT position FROM span") == [WHO]

    def test_only_what_would_be_told_is_taken_off(self, log: Log) -> None:
        log.put(people(*CROWD))
        log.spans.complete(advanced(log, opened(log), "z"), new_lease(log.database))
        log.put(people("a", "b", "c", "d", "zz"))
        log.put(people("a", "b", "c", "d", "zz", "zzz"))
        exits = opened(log, tell=frozenset({Tell.EXITED}))
        entries = opened(log, "segment", tell=frozenset({Tell.ENTERED}))
        assert (exits.books.total, entries.books.total) == (2, 6)
        forget(log, WHO, "zz")
        assert (stored(log, exits).books.total, stored(log, entries).books.total) == (1, 5)

    def test_one_who_came_and_went_was_never_counted(self, log: Log) -> None:
        log.put(people("a"))
        log.spans.complete(advanced(log, opened(log), "a"), new_lease(log.database))
        log.put(people("a", "b", WHO))
        log.put(people("a", "b"))
        span = opened(log)
        assert span.books.total == 1
        forget(log)
        assert stored(log, span).books.total == 1

    def rejected_and_gone(self, log: Log) -> Span:
        """Rejected first, then no member any more and in no chunk; to be told again."""
        log.put(people(*CROWD))
        span = advanced(log, opened(log), "z", "b", "d", WHO)
        log.spans.complete(span, new_lease(log.database))
        log.put(people("a", "z"))
        log.put(people("a", "z", "zz"))
        later = advanced(log, opened(log), "zz", "b", "d", WHO)
        log.spans.complete(later, new_lease(log.database))
        log.put(people("a", "z", "y"), base=True)
        log.snapshots.prune(log.key, log.clock.now, log.lease)
        Orders(log.database, log.clock).retry([log.key], ["crisp"], Given(actor="ann@ops"))
        return opened(log)

    def test_one_who_is_only_to_be_told_again(self, log: Log) -> None:
        span = self.rejected_and_gone(log)
        assert walked(log, span) == ["b", "d", WHO, "y", "zz"]
        assert span.books.total == 5
        assert forget(log).chunks == ()
        assert stored(log, span).books.total == 4
        assert walked(log, span) == ["b", "d", "y", "zz"]

    def test_the_one_before_may_be_one_who_is_told_again(self, log: Log) -> None:
        span = advanced(log, self.rejected_and_gone(log), WHO)
        forget(log)
        assert stored(log, span).position == "d"
        assert walked(log, span) == ["y", "zz"]
        assert stored(log, span).books.remaining == 2

    def test_a_held_first_delivery(self, log: Log) -> None:
        log.put(people(*CROWD))
        span = opened(log, limits=Limits(max_initial=1))
        forget(log)
        assert stored(log, span).books.total == 5
        assert stored(log, span).state == span.state

    def test_a_span_opened_while_somebody_is_forgotten_waits(self, log: Log) -> None:
        """What was counted for it is not what it would walk."""
        log.put(people(*CROWD))
        (waiting,) = log.spans.waiting("crisp", [log.key])
        forget(log)
        lane = new_lease(log.database)
        how: Any = {"tell": ALL, "limits": Limits(), "lease": lane}
        assert log.spans.open(waiting, "crisp", **how) is None
        (again,) = log.spans.waiting("crisp", [log.key])
        span = log.spans.open(again, "crisp", **how)
        assert span is not None
        log.spans.complete(span, lane)

        log.put(people(*CROWD))
        (waiting,) = log.spans.waiting("crisp", [log.key])
        surveyed = log.spans.surveyed

        def slow(*arguments: Any) -> Survey:
            found = surveyed(*arguments)
            forget(log, "zz")
            return found

        log.spans.surveyed = slow  # type: ignore[method-assign]
        how["lease"] = Leases(log.database).acquire("deliver:crisp:incremental")
        assert log.spans.open(waiting, "crisp", **how) is None


class TestLeases:
    def test_a_capture_that_goes_on_is_not_disturbed(self, log: Log) -> None:
        """Also of an audience that does not have the user yet: it may be about to."""
        log.put(people("a"))
        order = Order(user_ids=[WHO], given=Given(actor="ann@ops"))
        with pytest.raises(LeaseTaken, match="capture:vip") as taken:
            Forgetting(log.database, Leases(log.database), Clock()).forget(order)
        assert "nothing was changed" in str(taken.value.hint)
        assert forgotten(log.database) is None

    @pytest.mark.parametrize("name", ["capture:never_seen", "capture:configured"])
    def test_nor_the_first_capture_of_an_audience(self, log: Log, name: str) -> None:
        execute(log.database, "UPDATE lease SET expires_at = 0")
        Leases(log.database).acquire(name)
        with pytest.raises(LeaseTaken, match=name):
            Forgetting(log.database, Leases(log.database), Clock()).forget(
                Order(user_ids=[WHO], given=Given(actor="ann@ops")), [AudienceKey("configured")]
            )

    def test_nor_a_delivery_of_an_audience_with_the_user(self, log: Log) -> None:
        log.put(people(*CROWD))
        opened(log)
        taken = pytest.raises(LeaseTaken, match="deliver:crisp:initial")
        with self.only(log, "deliver:crisp:initial"), taken:
            Forgetting(log.database, Leases(log.database), Clock()).forget(
                Order(user_ids=["b"], given=Given(actor="ann@ops"))
            )
        assert log.members(1) == people(*CROWD)
        assert forgotten(log.database) is None

    def test_a_delivery_of_another_audience_goes_on(self, log: Log) -> None:
        log.put(people("a", "z"))
        opened(log)
        other = Log(log.database, OLD_HANDS)
        other.put(people(WHO))
        with self.only(log, "deliver:crisp:initial") as lease:
            Forgetting(log.database, Leases(log.database), Clock()).forget(
                Order(user_ids=[WHO], given=Given(actor="ann@ops"))
            )
            Leases(log.database).renew(lease)
        assert other.members(1) == {}

    def test_a_delivery_that_begins_meanwhile_is_seen(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from audience_sync.store import forget as module

        log.put(people(*CROWD))
        look = module.changed_spans

        def then_open(*arguments: Any) -> Any:
            found = look(*arguments)
            opened(log)
            return found

        monkeypatch.setattr(module, "changed_spans", then_open)
        with pytest.raises(LeaseTaken, match="deliver:crisp:initial"):
            forget(log)
        assert forgotten(log.database) is None
        assert log.members(1) == people(*CROWD)

    @contextmanager
    def only(self, log: Log, name: str) -> Iterator[Any]:
        """All leases are free but one, which a living process holds: this one."""
        execute(log.database, "UPDATE lease SET expires_at = 0")
        yield Leases(log.database).acquire(name)


class TestRemembered:
    def test_only_a_reference_is_kept(self, log: Log) -> None:
        log.put(people("a"))
        forget(log, WHO, "é𝔸")
        secret = installation_of(log.database, START).secret
        found = forgotten(log.database)
        assert found is not None
        assert found.salt == secret
        assert secret not in repr(found)
        assert set(found.references) == {reference(secret, WHO), reference(secret, "é𝔸")}
        assert log.snapshots.forgotten() == found

    def test_twice_is_once(self, log: Log) -> None:
        log.put(people(*CROWD))
        forget(log)
        assert forget(log).chunks == ()
        assert scalar(log.database, "SELECT count(*) FROM forgotten") == 1

    def test_the_order_is_kept_without_a_name(self, log: Log) -> None:
        log.put(people(*CROWD))
        forget(log, reason="request 12")
        with log.database.read() as connection:
            (row,) = connection.exec_driver_sql(
                "SELECT outcome, actor, counts FROM run WHERE kind = 'forget'"
            )
        assert tuple(row)[:2] == ("forgotten", "ann@ops")
        assert "request 12" in str(row.counts)

    @pytest.mark.parametrize("reason", [WHO, f"on behalf of {WHO}, art. 17", f"({WHO})"])
    def test_a_reason_that_names_the_user_is_refused(self, log: Log, reason: str) -> None:
        with pytest.raises(UsageError):
            forget(log, reason=reason)

    def test_earlier_reasons_lose_the_name(self, log: Log) -> None:
        log.put(people("a", "1", "é-7"))
        held = log.hold(people("a"))
        log.snapshots.discard(held, log.lease, reason="é-7 asked; see 17, 1", actor="ann@ops")
        forget(log, "é-7", "1")
        found = scalar(log.database, "SELECT counts FROM run WHERE kind = 'approve'")
        assert "[forgotten] asked; see 17, [forgotten]" in str(found)


class TestFiles:
    """SQLite keeps what was deleted until its pages are used again; not after this."""

    @pytest.fixture
    def log(self, sqlite_url: str) -> Iterator[Log]:
        database = Database(sqlite_url)
        installation_of(database, START)
        yield Log(database)
        database.close()

    def files(self, log: Log) -> bytes:
        path = log.database.path
        assert path is not None
        return b"".join(p.read_bytes() for p in path.parent.glob(f"{path.name}*"))

    def test_no_byte_of_the_id_is_left(self, log: Log) -> None:
        log.rows_per_chunk = 3
        log.put(people(*CROWD, f"{WHO}x"))
        span = advanced(log, opened(log), WHO, WHO)
        log.put(people("a", "b"))
        log.hold(people("a", WHO))
        log.stage(people("a", WHO))
        assert self.files(log).count(WHO.encode()) > 5
        forget(log, WHO, f"{WHO}x", reason="request 12")
        assert WHO.encode() not in self.files(log)
        assert stored(log, span).position == "d"
        assert self.files(log).count(b"request 12") == 1

    def test_nor_what_was_pruned_long_ago(self, log: Log) -> None:
        log.put(people(*(f"{WHO}-{n}" for n in range(500))))
        log.put(people("a"), base=True)
        log.snapshots.prune(log.key, log.clock.now, log.lease)
        assert f"{WHO}-77".encode() in self.files(log)
        assert forget(log, *(f"{WHO}-{n}" for n in range(0, 500))).chunks == ()
        assert WHO.encode() not in self.files(log)

    def test_a_reader_that_stays_is_told_of(self, log: Log, sqlite_url: str) -> None:
        log.put(people(*CROWD))
        reader = Database(sqlite_url)
        with reader.read() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM chunk").all()
            raw = log.database._engine.raw_connection()
            raw.cursor().execute("PRAGMA busy_timeout = 100")  # type: ignore[no-untyped-call]
            raw.close()
            with pytest.raises(LeaseTaken, match="still hold"):
                forget(log)
        reader.close()
        assert forget(log).chunks == ()
        assert WHO.encode() not in self.files(log)

    def test_a_full_disk_is_told_of(self, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
        log.put(people(*CROWD))

        def full(_database: Database) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(Database, "_rewrite_file", full)
            with pytest.raises(
                StoreFailed, match=r"forgotten, but .* still hold .* full$"
            ) as failed:
                forget(log)
        assert "run it again" in str(failed.value.hint)
        log.lease = new_lease(log.database, "capture:vip")
        assert log.members(1) == people("a", "b", "c", "d", "z")
        forget(log)
        assert WHO.encode() not in self.files(log)


class TestKilled:
    @pytest.mark.parametrize("step", ["remember", "rewrite", "named_in_orders", "commit", "wipe"])
    def test_anywhere_it_is_done_or_not_and_can_be_done_again(
        self, log: Log, store_url: str, step: str
    ) -> None:
        log.put(people(*CROWD))
        span = advanced(log, opened(log), WHO, WHO)
        execute(log.database, "UPDATE lease SET expires_at = 0")
        done = subprocess.run(
            [sys.executable, "-m", "tests.fakes.store_process", store_url, "forget", WHO, step],
            cwd=TOP,
            env={**os.environ, "PYTHONPATH": str(TOP)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        is_done = step == "wipe"
        assert (forgotten(log.database) is not None) is is_done
        assert (WHO in log.members(1)) is not is_done
        assert (stored(log, span).position == WHO) is not is_done
        forget(log)
        assert log.members(1) == log.kept[1]
        assert stored(log, span).position == "d"
        assert walked(log, span) == ["z"]
        if log.database.path is not None:
            folder = log.database.path.parent
            assert not [p for p in folder.iterdir() if WHO.encode() in p.read_bytes()]


def test_a_chunk_that_was_rewritten_has_its_own_checksum(log: Log) -> None:
    log.put(people(*CROWD))
    before = column(log.database, "SELECT payload FROM chunk ORDER BY ordinal")
    forget(log)
    after = column(log.database, "SELECT payload FROM chunk ORDER BY ordinal")
    assert before[:2] == after[:2]
    assert before[2] != after[2]
    assert chunks.decode(bytes(after[2])).column(0).to_pylist() == ["z"]
