"""What happened to an audience, read back on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest

from audience_sync.domain.audience import Audience, AudienceKey, Seq, Tell
from audience_sync.domain.guard import Limits
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Books, Refusal, Span, SpanKind, SpanState, Tally
from audience_sync.store.destinations import Destinations
from audience_sync.store.engine import Database
from audience_sync.store.history import Histories
from audience_sync.store.lookups import Lookups
from tests.fakes.snapshot_log import HOUR, START, Log, execute, new_lease, people

EVERYTHING = frozenset(Tell)


@pytest.fixture
def log(database: Database) -> Log:
    return Log(database)


@pytest.fixture
def histories(log: Log) -> Histories:
    return Histories(log.database)


def deliver(log: Log, destination: str = "crisp", *, max_initial: int = 100) -> Span:
    (waiting,) = log.spans.waiting(destination, [log.key])
    lease = new_lease(log.database, f"deliver:{destination}:initial")
    limits = Limits(max_initial=max_initial)
    opened = log.spans.open(waiting, destination, tell=EVERYTHING, limits=limits, lease=lease)
    assert opened is not None
    return opened


def finish(log: Log, span: Span, tally: Tally | None = None) -> None:
    lease = new_lease(log.database, "finish")
    if tally is not None:
        span = log.spans.advance(span, span.books.add(tally), tally, lease)
    log.spans.complete(span, lease)


def test_snapshots_newest_first_with_their_definitions(log: Log, histories: Histories) -> None:
    log.put(people("a", "b"))
    log.put(people("a", "b", "c"), query_hash="77d2")
    log.put(people("a"), query_hash="77d2")
    found = histories.snapshots(log.key, None, kept=[Seq(2), Seq(3)])
    assert [(s.seq, s.members, s.entered, s.exited, s.kept) for s in found] == [
        (3, 1, 0, 2, True),
        (2, 3, 1, 0, True),
        (1, 2, 2, 0, False),
    ]
    assert [(s.definition, s.definition_before) for s in found] == [
        ("77d2", None),
        ("77d2", "a1c9"),
        ("a1c9", None),
    ]
    assert [s.captured_at for s in found] == [START + 2 * HOUR, START + HOUR, START]
    assert found[0].refused == {"user_id is missing": 1}
    assert [(s.seq, s.members) for s in histories.sizes(log.key)] == [(1, 2), (2, 3), (3, 1)]


def test_a_limit_hides_no_change_of_definition(log: Log, histories: Histories) -> None:
    log.put(people("a", "b"))
    log.put(people("a"), query_hash="77d2")
    (newest,) = histories.snapshots(log.key, 1, kept=[])
    assert newest.definition_before == "a1c9"


def test_who_approved_what_and_why(log: Log, histories: Histories) -> None:
    log.put(people("a", "b"))
    dropped, wanted = log.hold({}), log.hold(people("a"))
    log.snapshots.discard(dropped, log.lease, reason="wrong file", actor="bob@ops")
    log.approve(wanted, people("a"))
    newest, first = histories.snapshots(log.key, None, kept=[])
    assert first.approval is None
    assert newest.approval is not None
    assert (newest.approval.actor, newest.approval.reason) == ("ann@ops", "seen")
    orders = histories.orders(log.key, None)
    assert [(o.kind, o.outcome, o.actor, o.reason, o.plan) for o in orders] == [
        ("approve", "approved", "ann@ops", "seen", wanted.plan_id),
        ("approve", "discarded", "bob@ops", "wrong file", dropped.plan_id),
    ]
    assert len(histories.orders(log.key, 1)) == 1


def test_a_first_delivery_that_was_approved(log: Log, histories: Histories) -> None:
    log.put(people(*"abcdefghijkl"))
    held = deliver(log, max_initial=1)
    log.spans.approve(held, reason="announced", actor="ann@ops")
    (order,) = histories.orders(log.key, None)
    assert (order.kind, order.outcome, order.destinations) == ("approve", "approved", ("crisp",))
    assert order.reason == "announced"


def test_only_what_went_wrong_is_a_run_to_show(log: Log, histories: Histories) -> None:
    vip = Audience(key=log.key, name="VIP", source="s", query="q", destinations=())
    log.put(people("a", "b"))
    log.snapshots.unchanged(log.capture(people("a", "b")), log.lease, started_at=log.clock.now)
    log.clock.now += HOUR
    log.snapshots.failed(vip, log.clock.now, "gone", log.lease, started_at=log.clock.now)
    log.clock.now += HOUR
    held = log.hold({})
    runs = histories.trouble(log.key, None)
    assert [(r.kind, r.outcome, r.error, r.started_at) for r in runs] == [
        ("capture", "held", None, START + 3 * HOUR),
        ("capture", "failed", "gone", START + 2 * HOUR),
    ]
    assert (runs[0].held_for, runs[0].plan) == (held.held_for, held.plan_id)


def test_failed_deliveries_to_the_audiences_destinations(log: Log, histories: Histories) -> None:
    log.put(people("a"))
    finish(log, deliver(log))
    books = Destinations(log.database, log.clock)
    for name, outcome, error in (
        ("crisp", "failed", "key refused"),
        ("crisp", "completed", None),
        ("other", "failed", "down"),
    ):
        lease = new_lease(log.database, f"deliver:{name}:initial")
        books.end_run(books.start_run(name, Lane.INITIAL, lease), outcome, {}, error, lease)
    (run,) = histories.trouble(log.key, None)
    assert (run.kind, run.destination, run.outcome, run.error) == (
        "delivery",
        "crisp",
        "failed",
        "key refused",
    )


def test_deliveries_newest_first(log: Log, histories: Histories) -> None:
    log.put(people("a", "b"))
    tally = Tally(last_user_id="b", accepted=1, rejected=[Refusal(user_id="b", reason="too long")])
    finish(log, deliver(log), tally)
    log.clock.now += HOUR
    log.put(people("a"))
    deliver(log)
    newest, first = histories.deliveries(log.key, None)
    assert (newest.kind, newest.state) == (SpanKind.INCREMENTAL, SpanState.OPEN)
    assert (newest.from_seq, newest.to_seq, newest.ended_at) == (1, 2, None)
    assert (first.kind, first.lane) == (SpanKind.INITIAL, Lane.INITIAL)
    assert first.books == Books(total=2, accepted=1, rejected=1)
    assert (first.opened_at, first.ended_at) == (START + HOUR, START + HOUR)
    assert first.position == "b"
    assert [d.number for d in histories.deliveries(log.key, 1)] == [2]
    (refused,) = histories.refused(log.key, "b")
    assert (refused.outcome, refused.reason, refused.span_id) == ("rejected", "too long", first.id)
    assert (refused.again_in, refused.retry) == ({newest.id}, False)
    assert histories.refused(log.key, "a") == []


def test_of_another_audience_nothing_is_shown(log: Log, histories: Histories) -> None:
    log.put(people("a"))
    other = Log(log.database, key=AudienceKey("other"))
    other.put(people("b", "c"))
    other.hold({})
    finish(other, deliver(other))
    assert [s.members for s in histories.snapshots(log.key, None, kept=[])] == [1]
    for read in (histories.trouble, histories.orders, histories.deliveries):
        assert read(log.key, None) == []
    assert histories.sizes(AudienceKey("nobody")) == []


def test_moments_of_some_snapshots(log: Log, histories: Histories) -> None:
    log.put(people("a"))
    log.put(people("b"))
    log.put(people("c"), query_hash="77d2")
    found = histories.moments(log.key, [Seq(1), Seq(3)])
    assert {seq: (m.captured_at, m.definition) for seq, m in found.items()} == {
        1: (START, "a1c9"),
        3: (START + 2 * HOUR, "77d2"),
    }


class TestEmail:
    def test_everyone_who_has_or_had_it(self, log: Log) -> None:
        shared = {"email": "Ann@Example.com"}
        log.put({**people("a", "b"), "c": shared})
        log.put({**people("a"), "c": {"email": "other@example.com"}, "d": shared})
        log.put({**people("a", "c"), "e": {"email": None}}, base=True)
        lookups = Lookups(log.database)
        assert lookups.with_email(log.key, "ann@example.com") == {"c", "d"}
        assert lookups.with_email(log.key, "B@EXAMPLE.COM") == {"b"}
        assert lookups.with_email(log.key, "nobody@example.com") == set()

    def test_only_what_is_kept(self, log: Log) -> None:
        log.put(people("a", "b"))
        log.put(people("a"), base=True)
        log.put(people("a", "c"))
        log.snapshots._keep = timedelta(hours=2)
        log.snapshots.prune(log.key, log.clock.now, log.lease)
        lookups = Lookups(log.database)
        assert lookups.with_email(log.key, "b@example.com") == set()
        assert lookups.with_email(log.key, "a@example.com") == {"a"}

    def test_an_audience_without_the_column(self, log: Log) -> None:
        log.put(people("a"))
        execute(log.database, "DELETE FROM chunk")
        execute(log.database, "UPDATE snapshot SET members = 0, entered = 0")
        assert Lookups(log.database).with_email(log.key, "a@example.com") == set()
