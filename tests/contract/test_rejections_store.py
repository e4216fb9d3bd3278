"""Members who could not be told: kept, shown, and told again with their state of then."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event

from audience_sync.domain.audience import AudienceKey, Seq, Tell
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Books, SpanState
from audience_sync.store import rejections, survey, walks
from audience_sync.store.engine import Database
from audience_sync.store.spans import Spans
from tests.fakes.snapshot_log import HOUR, Log, column, people, scalar
from tests.fakes.teller import ANN, BOTH, Teller


@pytest.fixture
def log(database: Database) -> Log:
    return Log(database)


@pytest.fixture
def crisp(log: Log) -> Teller:
    """Told of ``a`` to ``f``; ``b`` and ``d`` were rejected."""
    log.put(people(*"abcdef"))
    teller = Teller(log)
    assert teller.run(refuse="bd") == ["+a", "+c", "+e", "+f"]
    return teller


class TestKept:
    def test_with_reason_and_time(self, log: Log, crisp: Teller) -> None:
        first, second = crisp.standing()
        assert (first.user_id, second.user_id) == ("b", "d")
        assert (first.audience, first.destination) == (log.key, "crisp")
        assert (first.outcome, first.reason) == ("rejected", "refused by span 1")
        assert first.recorded_at == log.clock.now
        assert not first.again

    def test_those_who_were_skipped_stand_too(self, log: Log) -> None:
        log.put(people(*"abc"))
        teller = Teller(log)
        teller.run(refuse="b", outcome="skipped")
        assert [(r.user_id, r.outcome) for r in teller.standing()] == [("b", "skipped")]
        teller.retry()
        assert teller.run() == ["+b"]

    def test_of_one_audience_and_destination(self, log: Log, crisp: Teller) -> None:
        segment = Teller(log, to="segment")
        segment.run(refuse="e")
        other = Teller(Log(log.database, key=AudienceKey("other")))
        other.log.put(people("x"))
        other.run(refuse="x")
        assert (crisp.stand(), segment.stand(), other.stand()) == (["b", "d"], ["e"], ["x"])
        keys, names = [log.key, other.log.key], ["crisp", "segment"]
        found = crisp.rejections.unresolved(keys, names)
        assert [r.user_id for r in found] == ["b", "d", "e", "x"]
        assert list(crisp.rejections.unresolved([], names)) == []

    def test_page_by_page(self, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rejections, "PAGE", 2)
        log.put(people(*"abcdefg"))
        teller = Teller(log)
        teller.run(refuse="abcdefg")
        assert teller.stand() == [*"abcdefg"]
        assert teller.retry() == 7
        assert teller.run(refuse="ace") == ["+b", "+d", "+f", "+g"]
        assert teller.stand() == [*"ace"]


class TestToldAgain:
    def test_who_did_not_change_is_left_alone(self, log: Log, crisp: Teller) -> None:
        log.put(people(*"abcdefg"))
        assert crisp.run() == ["+g"]
        assert crisp.stand() == ["b", "d"]

    def test_when_the_row_changes_though_updates_are_not_told(
        self, log: Log, crisp: Teller
    ) -> None:
        """As it enters, since it has yet to: whatever changed meanwhile."""
        fixed = people(*"abcdef") | {u: {"email": f"new-{u}@example.com"} for u in "ab"}
        log.put(fixed)
        assert Tell.UPDATED not in crisp.tell
        assert crisp.run() == ["+b"]
        assert crisp.heard["b"] == {"email": "new-b@example.com"}
        assert crisp.stand() == ["d"]

    def test_who_left_is_told_so(self, log: Log, crisp: Teller) -> None:
        log.put(people(*"acdef"))
        assert crisp.run() == ["-b"]
        assert crisp.stand() == ["d"]

    def test_a_retry_needs_no_new_snapshot_and_takes_nobody_else(
        self, log: Log, crisp: Teller
    ) -> None:
        assert crisp.run() == []
        assert crisp.retry() == 2
        assert all(r.again for r in crisp.standing())
        span = crisp.open()
        assert span is not None
        assert (span.from_seq, span.to_seq, span.books.total) == (1, 1, 2)
        assert span.books.rejected_before == 2
        crisp.finish(span)
        assert crisp.calls[-2:] == ["+b", "+d"]
        assert (crisp.stand(), crisp.retry(), crisp.run()) == ([], 0, [])

    def test_always_with_the_state_of_then(self, log: Log, crisp: Teller) -> None:
        crisp.retry()
        log.put(people(*"acdefg") | {"d": {"email": "new@example.com"}})
        assert crisp.run() == ["-b", "+d", "+g"]
        assert crisp.heard["d"] == {"email": "new@example.com"}

    def test_who_came_and_went_between_is_told_so_on_a_retry(self, log: Log, crisp: Teller) -> None:
        log.put(people(*"acef"))
        assert crisp.run(refuse="bd") == []
        crisp.retry()
        assert crisp.run() == ["-b", "-d"]

    def test_a_retry_during_a_delivery_is_of_the_next(self, log: Log, crisp: Teller) -> None:
        log.put(people(*"abcdefg"))
        span = crisp.open()
        crisp.retry()
        assert span is not None
        crisp.finish(span)
        assert crisp.calls[-1:] == ["+g"]
        assert crisp.run() == ["+b", "+d"]

    def test_only_what_was_named(self, log: Log, crisp: Teller) -> None:
        segment = Teller(log, to="segment")
        segment.run(refuse="e")
        assert crisp.retry() == 2
        assert segment.run() == []
        assert crisp.orders.retry([AudienceKey("other")], ["segment"], ANN) == 0
        assert segment.retry() == 1

    def test_where_entering_is_not_told_those_who_stand_are(self, log: Log) -> None:
        """They stand because of an exit that was refused, then came back."""
        teller = Teller(log)
        log.put(people(*"abc"))
        teller.run()
        log.put(people(*"ab"))
        teller.run(refuse="c")
        log.put(people(*"abc"))
        teller.tell = frozenset({Tell.EXITED})
        assert teller.run() == ["+c"]

    def test_every_change_is_told_once(self, log: Log, crisp: Teller) -> None:
        crisp.tell = frozenset(Tell)
        crisp.retry()
        log.put(people(*"bcdeg") | {"c": {"email": "2@example.com"}, "d": {"email": "2@e.com"}})
        assert crisp.run() == ["-a", "+b", "=c", "+d", "-f", "+g"]


class TestInterrupted:
    @pytest.mark.parametrize("members", [0, 1, 3])
    @pytest.mark.parametrize("killed", [False, True])
    def test_it_goes_on_at_its_position(
        self, log: Log, crisp: Teller, members: int, killed: bool
    ) -> None:
        crisp.retry()
        log.put(people(*"abcefg"))
        span = crisp.open()
        assert span is not None
        crisp.walk(span, members=members, killed=killed)
        again = crisp.open()
        assert again is not None
        assert again.id == span.id
        crisp.finish(again)
        assert sorted(set(crisp.calls[4:])) == ["+b", "+g", "-d"]
        assert len(crisp.calls[4:]) <= 3 + killed
        assert crisp.stand() == []

    @pytest.mark.parametrize("position", ["", "a", "b", "bb", "c", "d", "g"])
    def test_the_walk_from_any_position(self, log: Log, crisp: Teller, position: str) -> None:
        crisp.retry()
        log.put(people(*"abcefg"))
        span = crisp.open()
        assert span is not None
        whole = list(log.spans.changes(span))
        rest = list(log.spans.changes(replace(span, position=position)))
        assert rest == [change for change in whole if change.user_id > position]

    def test_given_up_they_stand_again(self, log: Log, crisp: Teller) -> None:
        crisp.retry()
        span = crisp.open()
        assert span is not None
        log.spans.abandon(crisp.walk(span, members=1), crisp.lease(span.lane))
        assert crisp.stand() == ["b", "d"]
        assert crisp.run() == ["+b", "+d"], "the retry was asked for, and was not done"
        assert crisp.stand() == []

    def test_given_up_those_rejected_again_stand_once(self, log: Log, crisp: Teller) -> None:
        crisp.retry()
        span = crisp.open()
        assert span is not None
        log.spans.abandon(crisp.walk(span, refuse="b", members=1), crisp.lease(span.lane))
        assert crisp.stand() == ["d", "b"]
        assert crisp.retry() == 2


class TestRejectedAgain:
    def test_stands_once_with_the_new_reason(self, log: Log, crisp: Teller) -> None:
        crisp.retry()
        assert crisp.run(refuse="b") == ["+d"]
        (rejected,) = crisp.standing()
        assert (rejected.user_id, rejected.reason) == ("b", "refused by span 2")
        assert not rejected.again
        assert crisp.run() == []
        assert crisp.retry() == 1

    def test_says_nothing_of_the_set_up(self, log: Log) -> None:
        """Or a retry of many would pause the destination, and everybody else's deliveries."""
        crowd = [f"u{n:03}" for n in range(120)]
        log.put(people(*crowd))
        teller = Teller(log)
        teller.finish(teller.open(), refuse=crowd[:60])  # type: ignore[arg-type]
        assert (teller.retry(), Books(total=60).max_rejected) == (60, 100)
        span = teller.open()
        assert span is not None
        assert span.books.max_rejected == 100 + 60

    def test_nor_does_who_was_skipped_allow_for_rejections(self, log: Log) -> None:
        log.put(people(*"abc"))
        teller = Teller(log)
        teller.run(refuse="ab", outcome="skipped")
        teller.retry()
        span = teller.open()
        assert span is not None
        assert span.books.max_rejected == 100


class TestResolved:
    def test_by_the_span_that_handled_them(self, log: Log, crisp: Teller) -> None:
        crisp.retry()
        crisp.run()
        query = "SELECT resolved_in = (SELECT max(id) FROM span) FROM rejection"
        assert column(log.database, query) == [True, True]
        assert set(column(log.database, "SELECT state FROM span")) == {SpanState.COMPLETED}

    def test_not_before_it_is_completed(self, log: Log, crisp: Teller) -> None:
        crisp.retry()
        span = crisp.open()
        assert span is not None
        crisp.walk(span)
        assert [(r.user_id, r.again) for r in crisp.standing()] == [("b", True), ("d", True)]

    def test_kept_as_history_for_a_while(self, log: Log, crisp: Teller) -> None:
        crisp.retry()
        crisp.run(refuse="d")
        log.snapshots._keep = 2 * HOUR
        log.snapshots.prune(log.key, log.clock.now, log.lease)
        assert scalar(log.database, "SELECT count(*) FROM rejection") == 3
        log.clock.now += timedelta(hours=3)
        log.snapshots.prune(log.key, log.clock.now, log.lease)
        assert crisp.stand() == ["d"], "what stands is kept for ever"
        assert scalar(log.database, "SELECT count(*) FROM rejection") == 1


def test_the_order_is_part_of_the_history(log: Log, crisp: Teller) -> None:
    crisp.retry()
    query = "SELECT kind, outcome, actor FROM run ORDER BY id DESC LIMIT 1"
    with log.database.read() as connection:
        assert tuple(connection.exec_driver_sql(query).one()) == ("retry", "ordered", "ann@ops")
    before = scalar(log.database, "SELECT count(*) FROM run")
    crisp.run()
    assert crisp.retry() == 0
    assert scalar(log.database, "SELECT count(*) FROM run") == before, "an order about nobody"


def test_a_whole_walk_takes_up_all_who_stand(log: Log, crisp: Teller) -> None:
    log.put(people(*"abcefg"))
    crisp.resync()
    log.put(people(*"abcefg"))
    assert crisp.run() == ["=a", "+b", "=c", "-d", "=e", "=f", "+g"]
    assert crisp.stand() == []
    assert crisp.tell == BOTH
    assert log.spans.told_seq("crisp", log.key) == Seq(3)


@pytest.mark.parametrize("tell", [BOTH, frozenset({Tell.EXITED})])
def test_of_those_who_stand_a_page_is_in_memory(
    log: Log, monkeypatch: pytest.MonkeyPatch, tell: frozenset[Tell]
) -> None:
    """A first delivery to a place that cannot tell most of them skips millions."""
    everybody = [f"u{number:02}" for number in range(20)]
    log.put(people(*everybody))
    teller = Teller(log)
    teller.run(refuse=everybody, outcome="skipped")
    teller.resync()
    log.put(people(*everybody[10:], "v"))
    asked: list[int] = []
    rows = Spans._rows

    def counted(spans: Spans, key: AudienceKey, seq: Seq, ids: Collection[str]) -> Any:
        asked.append(len(ids))
        return rows(spans, key, seq, ids)

    monkeypatch.setattr(walks, "PAGE", 3)
    monkeypatch.setattr(Spans, "_rows", counted)
    teller.tell = tell
    span = teller.open()
    assert span is not None
    assert span.books.total == (21 if tell == BOTH else 20)
    assert (max(asked), sum(asked)) == (3, 20)
    teller.finish(span)
    assert teller.stand() == []


def test_of_those_who_are_told_again_a_page_is_in_memory(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Millions may be asked for by a person, or have changed at once."""
    everybody = [f"u{number:02}" for number in range(20)]
    log.put(people(*everybody))
    teller = Teller(log)
    teller.run(refuse=everybody, outcome="skipped")
    assert teller.retry() == 20
    monkeypatch.setattr(rejections, "SOME", 3)
    monkeypatch.setattr(survey, "IN_MEMORY", 10)
    statements: list[tuple[bool, int]] = []

    def seen(_c: Any, _d: Any, statement: str, values: Any, _x: Any, many: bool) -> None:
        if statement.startswith("UPDATE rejection SET retried_in"):
            statements.append((many, len(values)))

    event.listen(Engine, "before_cursor_execute", seen)
    try:
        span = teller.open()
    finally:
        event.remove(Engine, "before_cursor_execute", seen)
    assert span is not None
    assert span.books.total == 20
    assert len(statements) == 7, "three at a time"
    assert max(size for _, size in statements) < 10
    assert not any(many for many, _ in statements)
    teller.finish(span)
    assert teller.stand() == []
    assert teller.told == {*everybody}


@pytest.mark.parametrize("lane", list(Lane))
def test_what_is_under_way_is_said_without_reading_who_is_told(log: Log, lane: Lane) -> None:
    log.put(people(*"abc"))
    teller = Teller(log)
    span = teller.open()
    assert log.spans.under_way("crisp", lane) == ({log.key} if lane is Lane.INITIAL else set())
    assert span is not None
    teller.finish(span)
    assert log.spans.under_way("crisp", lane) == set()
    log.put(people(*"abcd"))
    teller.open()
    assert log.spans.under_way("crisp", lane) == (set() if lane is Lane.INITIAL else {log.key})
    assert log.spans.under_way("elsewhere", lane) == set()
