"""Spans on both databases: opened, walked, advanced, completed (P2, P3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import insert, select

from audience_sync.domain.audience import AudienceKey, ColumnType, Kind, Row, Seq, Tell
from audience_sync.domain.guard import Limits
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Books, Refusal, Span, SpanKind, SpanState, Tally
from audience_sync.errors import LeaseLost, StoreFailed, UsageError
from audience_sync.pipeline.ports.delivering import Waiting
from audience_sync.store import schema
from audience_sync.store.engine import Database
from tests.fakes.snapshot_log import HOUR, START, Log, column, execute, new_lease, people, scalar

ALL = frozenset(Tell)
CROWD = people(*(f"u{n:02}" for n in range(11)))


@pytest.fixture
def log(database: Database) -> Log:
    return Log(database)


def lease_of(log: Log, lane: Lane = Lane.INITIAL):  # type: ignore[no-untyped-def]
    return new_lease(log.database, f"deliver:crisp:{lane}")


def waiting(log: Log, to: str = "crisp") -> Waiting:
    (found,) = log.spans.waiting(to, [log.key])
    return found


def opened(
    log: Log, *, tell: frozenset[Tell] = ALL, limits: Limits | None = None, to: str = "crisp"
) -> Span:
    return log.spans.open(
        waiting(log, to), to, tell=tell, limits=limits or Limits(), lease=lease_of(log)
    )


def ids(changes: Iterator[object]) -> list[str]:
    return [change.user_id for change in changes]  # type: ignore[attr-defined]


def copy(log: Log, span: Span) -> None:
    with log.database.write() as connection:
        row = connection.execute(select(schema.span).where(schema.span.c.id == span.id)).one()
        another = {**row._mapping, "id": span.id + 99, "number": span.number + 1}
        connection.execute(insert(schema.span).values(another))


def stored(log: Log, span: Span) -> Span:
    (found,) = [s for s in log.spans.unfinished(span.destination) if s.id == span.id]
    return found


class TestWaiting:
    def test_nothing_captured_nothing_waits(self, log: Log) -> None:
        assert log.spans.waiting("crisp", [log.key]) == []

    def test_a_new_audience_waits_for_the_initial_lane(self, log: Log) -> None:
        log.put(CROWD)
        found = Waiting(
            audience=log.key, kind=SpanKind.INITIAL, told_seq=None, to_seq=Seq(1), members=11
        )
        assert log.spans.waiting("crisp", [log.key]) == [found]
        assert log.spans.waiting("crisp", [AudienceKey("other")]) == []
        assert log.spans.waiting("crisp", []) == []

    def test_not_while_a_span_is_open_or_held(self, log: Log) -> None:
        log.put(CROWD)
        span = opened(log)
        log.put(people("z"))
        assert log.spans.waiting("crisp", [log.key]) == []
        execute(log.database, "UPDATE span SET state = 'held'")
        assert log.spans.waiting("crisp", [log.key]) == []
        assert waiting_at(log, "segment") == [(None, 2)]
        execute(log.database, "UPDATE span SET state = 'open'")
        log.spans.complete(span, lease_of(log))
        assert waiting_at(log, "crisp") == [(1, 2)]

    def test_not_when_all_is_told(self, log: Log) -> None:
        log.put(CROWD)
        log.spans.complete(opened(log), lease_of(log))
        log.hold({})
        assert log.spans.waiting("crisp", [log.key]) == []


def waiting_at(log: Log, destination: str) -> list[tuple[int | None, int]]:
    return [(w.told_seq, w.to_seq) for w in log.spans.waiting(destination, [log.key])]


class TestOpen:
    def test_an_initial_span_walks_everyone(self, log: Log) -> None:
        log.put(CROWD)
        span = opened(log)
        assert (span.kind, span.lane, span.state) == (
            SpanKind.INITIAL,
            Lane.INITIAL,
            SpanState.OPEN,
        )
        assert (span.from_seq, span.to_seq, span.number, span.position) == (0, 1, 1, None)
        assert span.books == Books(total=11)
        assert span.captured_at == START
        assert span.plan_id == log.snapshots.current(log.key).plan_id  # type: ignore[union-attr]
        assert stored(log, span) == span

    def test_an_incremental_span_counts_what_is_told(self, log: Log) -> None:
        log.put(people("a", "b", "c", "d"))
        log.spans.complete(opened(log), lease_of(log))
        changed = people("a", "b", "e") | {"a": {"email": "new@example.com"}}
        log.put(changed)
        log.put(changed | people("f"))
        exits = opened(log, tell=frozenset({Tell.EXITED}))
        assert (exits.books.total, exits.number, exits.lane) == (2, 2, Lane.INCREMENTAL)
        assert (exits.from_seq, exits.to_seq) == (1, 3)
        log.spans.complete(exits, lease_of(log))
        log.put(people("a"))
        assert opened(log).books.total == 4

    def test_of_a_computed_trait_only_another_value_is_told(self, log: Log) -> None:
        def rows(**values: int | None) -> dict[str, Row]:
            return {user: {"value": value, "plan": "free"} for user, value in values.items()}

        log.columns = {"value": ColumnType.INT64, "plan": ColumnType.STRING}
        log.kind = Kind.COMPUTED_TRAIT
        log.put(rows(a=1, b=2, c=None, d=4))
        assert waiting(log).audience_kind is Kind.COMPUTED_TRAIT
        first = opened(log)
        assert (first.audience_kind, first.books.total) == (Kind.COMPUTED_TRAIT, 4)
        log.spans.complete(first, lease_of(log))
        log.put(rows(a=1, b=3, c=5, e=0) | {"a": {"value": 1, "plan": "pro"}})
        span = opened(log)
        assert (span.audience_kind, span.books.total) == (Kind.COMPUTED_TRAIT, 4)
        assert ids(log.spans.changes(span)) == ["b", "c", "d", "e"]
        assert stored(log, span) == span

    def test_an_initial_span_where_entering_is_not_told(self, log: Log) -> None:
        log.put(CROWD)
        span = opened(log, tell=frozenset({Tell.EXITED}), limits=Limits(max_initial=5))
        assert (span.books.total, span.state) == (0, SpanState.OPEN)

    def test_too_many_members_open_held(self, log: Log) -> None:
        log.put(CROWD)
        span = opened(log, limits=Limits(max_initial=10))
        assert span.state is SpanState.HELD
        assert log.spans.held() == [span]
        assert "limit 10" in scalar(log.database, "SELECT held_for FROM span")
        log.spans.approve(span, reason="announced", actor="ann@ops")
        assert stored(log, span).state is SpanState.OPEN
        assert log.spans.held() == []
        assert column(log.database, "SELECT outcome FROM run ORDER BY id")[-1] == "approved"
        assert column(log.database, "SELECT actor FROM run ORDER BY id")[-1] == "ann@ops"

    def test_exactly_max_initial_is_not_held(self, log: Log) -> None:
        log.put(CROWD)
        assert opened(log, limits=Limits(max_initial=11)).state is SpanState.OPEN

    def test_later_spans_are_never_held_for_their_size(self, log: Log) -> None:
        log.put(people("a"))
        log.spans.complete(opened(log), lease_of(log))
        log.put(CROWD)
        assert opened(log, limits=Limits(max_initial=1)).state is SpanState.OPEN

    def test_what_is_not_held_cannot_be_approved(self, log: Log) -> None:
        log.put(CROWD)
        span = opened(log, limits=Limits(max_initial=1))
        log.spans.approve(span, reason=None, actor="ann@ops")
        runs = scalar(log.database, "SELECT count(*) FROM run")
        with pytest.raises(UsageError, match="no longer held"):
            log.spans.approve(span, reason=None, actor="ann@ops")
        assert scalar(log.database, "SELECT count(*) FROM run") == runs

    @pytest.mark.parametrize("state", ["open", "held"])
    def test_the_database_allows_one_unfinished_span(self, log: Log, state: str) -> None:
        log.put(CROWD)
        span = opened(log)
        assert opened(log, to="segment").number == 1
        of_span = "UPDATE span SET state = :state WHERE id = :id"
        execute(log.database, of_span, state=state, id=span.id)
        with pytest.raises(StoreFailed):
            copy(log, span)
        assert [s.id for s in log.spans.unfinished("crisp")] == [span.id]
        execute(log.database, "UPDATE span SET state = 'completed' WHERE id = :id", id=span.id)
        assert opened(log).number == 2

    def test_an_old_epoch_opens_nothing(self, log: Log) -> None:
        log.put(CROWD)
        old = lease_of(log)
        lease_of(log)
        with pytest.raises(LeaseLost):
            log.spans.open(waiting(log), "crisp", tell=ALL, limits=Limits(), lease=old)
        assert log.spans.unfinished("crisp") == []

    def test_unfinished_by_lane_oldest_first(self, log: Log) -> None:
        other = Log(log.database, key=AudienceKey("other"))
        for one in (other, log):
            one.put(people("a"))
        first, second = opened(other), opened(log)
        assert log.spans.unfinished("crisp") == [first, second]
        assert log.spans.unfinished("crisp", Lane.INITIAL) == [first, second]
        assert log.spans.unfinished("crisp", Lane.INCREMENTAL) == []
        assert log.spans.unfinished("segment") == []


class TestWalk:
    def test_all_members_in_byte_order(self, log: Log) -> None:
        log.put(CROWD)
        assert list(log.spans.changes(opened(log))) == log.difference(0, 1)

    def test_it_goes_on_after_any_position(self, log: Log) -> None:
        log.put(CROWD)
        span = opened(log)
        whole = list(log.spans.changes(span))
        for n, change in enumerate(whole, start=1):
            rest = log.spans.changes(replace(span, position=change.user_id))
            assert list(rest) == whole[n:]

    def test_a_position_between_members(self, log: Log) -> None:
        log.put(people("b", "d", "f"))
        span = opened(log)
        for position, rest in {"a": "bdf", "c": "df", "g": "", "é": "", "B": "bdf"}.items():
            assert ids(log.spans.changes(replace(span, position=position))) == list(rest)

    def test_an_incremental_walk_goes_on_across_change_sets_and_chunks(self, log: Log) -> None:
        log.put(people(*"acegikmoq"))
        log.spans.complete(opened(log), lease_of(log))
        log.put(people(*"abcdegikmoqr"))
        log.put(people(*"bcdfijkmnopq"))
        log.put(people(*"abcfhijklmnoz"), base=True)
        span = opened(log)
        whole = list(log.spans.changes(span))
        assert whole == log.difference(1, 4)
        for n, change in enumerate(whole, start=1):
            rest = log.spans.changes(replace(span, position=change.user_id))
            assert list(rest) == whole[n:]

    def test_captures_go_on_while_a_walk_stays_what_it_was(self, log: Log) -> None:
        log.put(CROWD)
        span = opened(log)
        walk = log.spans.changes(span)
        first = [next(walk) for _ in range(3)]
        log.put(people("u00", "z"), base=True)
        log.put({})
        log.snapshots.prune(log.key, log.clock.now, log.lease)
        assert first + list(walk) == log.difference(0, 1)

    def test_backwards_from_a_later_base(self, log: Log) -> None:
        log.put(people(*"abcdefg"))
        log.put(people(*"abcdefgh") | {"a": {"email": "2@example.com"}})
        span = opened(log)
        log.put(people(*"cdefgh"))
        again = {"a": {"email": "4@example.com"}, "c": {"email": "4@example.com"}}
        log.put(people(*"acdexyz") | again, base=True)
        # Only the later base is left, as a restart of the walk would find it.
        execute(log.database, "UPDATE snapshot SET has_base = :no WHERE seq < 4", no=False)
        execute(
            log.database,
            "DELETE FROM chunk WHERE part = 'base' AND snapshot_id IN "
            "(SELECT id FROM snapshot WHERE seq < 4)",
        )
        whole = list(log.spans.changes(span))
        assert whole == log.difference(0, 2)
        assert whole[0].after == {"email": "2@example.com"}
        for n, change in enumerate(whole, start=1):
            rest = log.spans.changes(replace(span, position=change.user_id))
            assert list(rest) == whole[n:]

    def test_nothing_is_held_open_between_members(self, log: Log) -> None:
        log.put(CROWD)
        walk = log.spans.changes(opened(log))
        next(walk)
        assert log.database._engine.pool.checkedout() == 0  # type: ignore[attr-defined]

    def test_without_any_base_nobody_is_made_up(self, log: Log) -> None:
        log.put(CROWD)
        execute(log.database, "UPDATE snapshot SET has_base = :no", no=False)
        with pytest.raises(StoreFailed, match="no base"):
            list(log.spans.net(log.key, Seq(0), Seq(1)))

    def test_changes_after(self, log: Log) -> None:
        assert log.spans.changes_after(log.key, Seq(0), ALL) == 0
        log.put(people("a", "b"))
        log.put(people("a"))
        log.hold({})
        log.put(people("c") | {"a": {"email": "new@example.com"}})
        assert log.spans.changes_after(log.key, Seq(1), ALL) == 3
        assert log.spans.changes_after(log.key, Seq(1), {Tell.ENTERED, Tell.EXITED}) == 2
        assert log.spans.changes_after(log.key, Seq(3), ALL) == 0


class TestAdvance:
    def tally(self, last: str, accepted: int) -> Tally:
        return Tally(
            last_user_id=last,
            accepted=accepted,
            rejected=[Refusal(user_id="u01", reason="400")],
            skipped=[Refusal(user_id="u02", reason="no e-mail")],
        )

    def test_position_and_books_move_together(self, log: Log) -> None:
        log.put(CROWD)
        span, lease = opened(log), lease_of(log)
        tally = self.tally("u04", 3)
        moved = log.spans.advance(span, span.books.add(tally), tally, lease)
        assert moved.position == "u04"
        assert moved.books == Books(total=11, accepted=3, rejected=1, skipped=1)
        assert moved.books.remaining == 6
        assert stored(log, span) == moved
        assert ids(log.spans.changes(moved)) == [f"u{n:02}" for n in range(5, 11)]

    def test_refusals_are_kept_with_their_reason(self, log: Log) -> None:
        log.put(CROWD)
        span, tally = opened(log), self.tally("u04", 3)
        log.spans.advance(span, span.books.add(tally), tally, lease_of(log))
        with log.database.read() as connection:
            rows = connection.exec_driver_sql(
                "SELECT span_id, user_id, outcome, reason FROM rejection ORDER BY user_id"
            ).all()
        assert [tuple(row) for row in rows] == [
            (span.id, "u01", "rejected", "400"),
            (span.id, "u02", "skipped", "no e-mail"),
        ]

    def test_an_old_epoch_moves_nothing(self, log: Log) -> None:
        log.put(CROWD)
        span, old, tally = opened(log), lease_of(log), self.tally("u04", 3)
        lease_of(log)
        with pytest.raises(LeaseLost):
            log.spans.advance(span, span.books.add(tally), tally, old)
        with pytest.raises(LeaseLost):
            log.spans.complete(span, old)
        assert stored(log, span) == span
        assert scalar(log.database, "SELECT count(*) FROM rejection") == 0
        assert log.spans.told_seq("crisp", log.key) is None

    def test_refusals_that_cannot_be_kept_move_nothing(self, log: Log) -> None:
        log.put(CROWD)
        span = opened(log)
        tally = Tally(last_user_id="u04", accepted=5)
        tally.rejected.append(Refusal(user_id=None, reason="400"))  # type: ignore[arg-type]
        with pytest.raises(StoreFailed):
            log.spans.advance(span, span.books.add(tally), tally, lease_of(log))
        assert stored(log, span) == span

    @pytest.mark.parametrize("state", ["held", "completed", "abandoned"])
    def test_only_an_open_span_moves(self, log: Log, state: str) -> None:
        log.put(CROWD)
        span, tally = opened(log), self.tally("u04", 3)
        execute(log.database, "UPDATE span SET state = :state", state=state)
        with pytest.raises(LeaseLost, match="no longer open"):
            log.spans.advance(span, span.books.add(tally), tally, lease_of(log))
        with pytest.raises(LeaseLost, match="no longer open"):
            log.spans.complete(span, lease_of(log))
        assert column(log.database, "SELECT position FROM span") == [None]
        assert scalar(log.database, "SELECT count(*) FROM rejection") == 0
        assert log.spans.told_seq("crisp", log.key) is None


class TestComplete:
    def test_told_seq_is_set_and_moved(self, log: Log) -> None:
        assert log.spans.told_seq("crisp", log.key) is None
        for seq, members in enumerate((people("a"), people("b"), people("c")), start=1):
            log.put(members)
            log.spans.complete(opened(log), lease_of(log))
            assert log.spans.told_seq("crisp", log.key) == seq
        assert log.spans.unfinished("crisp") == []
        assert log.spans.told_seq("segment", log.key) is None

    def test_the_next_span_starts_where_the_walk_was_pinned(self, log: Log) -> None:
        log.put(people("a", "b"))
        span = opened(log)
        log.put(people("b", "c"))
        log.put(people("c"))
        log.spans.complete(span, lease_of(log))
        following = opened(log)
        assert (following.from_seq, following.to_seq) == (1, 3)
        assert ids(log.spans.changes(following)) == ["a", "b", "c"]
        assert following.captured_at == START + 2 * HOUR

    def test_each_destination_has_its_own(self, log: Log) -> None:
        log.put(people("a"))
        log.spans.complete(opened(log), lease_of(log))
        log.put(people("b"))
        segment = log.spans.open(
            log.spans.waiting("segment", [log.key])[0],
            "segment",
            tell=ALL,
            limits=Limits(),
            lease=new_lease(log.database, "deliver:segment:initial"),
        )
        assert (segment.number, segment.from_seq, segment.to_seq) == (1, 0, 2)
        log.spans.complete(segment, lease_of(log))
        assert (log.spans.told_seq("crisp", log.key), log.spans.told_seq("segment", log.key)) == (
            1,
            2,
        )

    def test_the_way_from_told_outlives_every_prune(self, log: Log) -> None:
        log.put(people("a"))
        log.spans.complete(opened(log), lease_of(log))
        for name in "bcdef":
            log.put(people(name), base=True)
            log.snapshots.prune(log.key, log.clock.now + timedelta(365), log.lease)
        assert list(log.spans.changes(opened(log))) == log.difference(1, 6)


def test_a_span_keeps_how_it_was_told(log: Log) -> None:
    """An edited ``tell`` holds from the next span on: the books of this one stay true."""
    log.put(CROWD)
    opened(log, tell=frozenset({Tell.ENTERED}))
    assert [span.tell for span in log.spans.unfinished("crisp")] == [frozenset({Tell.ENTERED})]
