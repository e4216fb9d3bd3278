"""Everybody's state told anew: all members, and ``false`` for whoever was told ``true`` and left.

(P13)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from audience_sync.domain.audience import Seq, Tell
from audience_sync.domain.guard import Limits
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Span, SpanKind, SpanState
from audience_sync.errors import SpanEnded, UsageError
from audience_sync.store.engine import Database
from tests.fakes.snapshot_log import HOUR, Log, Members, column, execute, people, scalar
from tests.fakes.teller import ANN, MINUTE, Teller


@pytest.fixture
def log(database: Database) -> Log:
    return Log(database)


@pytest.fixture
def crisp(log: Log) -> Teller:
    """Told of ``a`` to ``e``."""
    log.put(people(*"abcde"))
    teller = Teller(log)
    teller.run()
    return teller


def resync_to(crisp: Teller, members: Members) -> list[str]:
    """The order, the capture it waits for, and the calls."""
    crisp.resync()
    crisp.log.put(members)
    return crisp.run()


class TestWhoIsTold:
    def test_every_member_and_who_left(self, log: Log, crisp: Teller) -> None:
        log.put(people(*"abcdef"))
        crisp.resync()
        log.put(people(*"bcdefg"))
        span = crisp.open()
        assert span is not None
        assert (span.kind, span.lane, span.from_seq, span.to_seq) == (
            SpanKind.RESYNC,
            Lane.INITIAL,
            0,
            3,
        )
        assert span.books.total == 7
        crisp.finish(span)
        assert crisp.calls[5:] == ["-a", "=b", "=c", "=d", "=e", "+f", "+g"]
        assert log.spans.told_seq("crisp", log.key) == 3
        assert crisp.run() == []

    def test_who_left_carries_the_last_known_columns(self, log: Log, crisp: Teller) -> None:
        crisp.resync()
        log.put(people(*"bcde"))
        span = crisp.open()
        assert span is not None
        (left,) = [change for change in log.spans.changes(span) if change.after is None]
        assert left.before == {"email": "a@example.com"}

    @pytest.mark.parametrize("only", [Tell.ENTERED, Tell.EXITED])
    def test_what_is_not_told_is_not(self, log: Log, crisp: Teller, only: Tell) -> None:
        crisp.tell = frozenset({only})
        calls = resync_to(crisp, people(*"bcdef"))
        entries = ["=b", "=c", "=d", "=e", "+f"]
        assert calls == (entries if only is Tell.ENTERED else ["-a"])

    def test_each_destination_for_itself(self, log: Log, crisp: Teller) -> None:
        segment = Teller(log, to="segment")
        segment.run()
        assert crisp.resync() == ["crisp"]
        log.put(people(*"abcdef"))
        assert segment.run() == ["+f"]
        assert len(crisp.run()) == 6

    def test_where_nothing_was_told_there_is_nothing_to_tell_anew(self, log: Log) -> None:
        log.put(people("a"))
        assert Teller(log).resync() == []
        assert scalar(log.database, "SELECT count(*) FROM resync") == 0
        assert "resync" not in column(log.database, "SELECT kind FROM run")

    def test_a_first_delivery_to_many_is_held_all_the_same(self, log: Log) -> None:
        """Who was told of nobody, or only held, has not heard of the audience."""
        log.put(people(*"abc"))
        teller = Teller(log, limits=Limits(max_initial=2))
        held = teller.open()
        assert held is not None
        assert held.state is SpanState.HELD
        teller.resync()
        log.put(people(*"abcd"))
        again = teller.open()
        assert again is not None
        assert (again.kind, again.state, again.books.total) == (
            SpanKind.RESYNC,
            SpanState.HELD,
            4,
        )
        log.spans.approve(again, reason=None, actor="ann@ops")
        opened = teller.open()
        assert opened is not None
        teller.finish(opened)
        assert teller.told == {*"abcd"}

    def test_to_many_who_know_the_audience_it_is_not_held(self, log: Log, crisp: Teller) -> None:
        crisp.limits = Limits(max_initial=2)
        assert len(resync_to(crisp, people(*"abcde"))) == 5


def initial(crisp: Teller) -> None:
    """A first delivery of ``a`` to ``f``."""
    crisp.log.put(people(*"abcdef"))


def incremental(crisp: Teller) -> None:
    crisp.log.put(people(*"ab"))
    crisp.run()
    crisp.log.put(people(*"acdefg"))


def resync(crisp: Teller) -> None:
    crisp.log.put(people(*"abz"))
    crisp.run()
    crisp.resync()
    crisp.log.put(people(*"acdefg"))


class TestGivenUp:
    """A delivery under way is given up for it; what it told counts."""

    @pytest.mark.parametrize("begin", [initial, incremental, resync])
    @pytest.mark.parametrize("members", [0, 1, 3])
    @pytest.mark.parametrize("killed", [False, True])
    def test_nobody_stays_who_was_told_by_a_part(
        self, log: Log, begin: Callable[[Teller], None], members: int, killed: bool
    ) -> None:
        crisp = Teller(log)
        begin(crisp)
        span = crisp.open()
        assert span is not None
        crisp.walk(span, members=members, killed=killed)
        resync_to(crisp, people(*"dx"))
        assert crisp.told == {*"dx"}
        assert states(log)[-2:] == ["abandoned", "completed"]

    def test_nor_by_a_chain_of_parts(self, log: Log) -> None:
        """Each time others were told, and left before the next."""
        crisp = Teller(log)
        for members in (people(*"abc"), people(*"bde"), people(*"efg"), people(*"gh")):
            log.put(members)
            span = crisp.open()
            assert span is not None
            crisp.walk(span, members=2, killed=True)
            crisp.resync()
        log.put(people(*"hi"))
        crisp.run()
        assert crisp.told == {*"hi"}
        assert states(log) == [*["abandoned"] * 4, "completed"]
        log.put(people(*"i"))
        assert crisp.run() == ["-h"], "what it gave up is over with the next whole walk"

    def test_who_was_told_false_by_a_part_and_came_back_has_entered(
        self, log: Log, crisp: Teller
    ) -> None:
        log.put(people(*"de"))
        span = crisp.open()
        assert span is not None
        crisp.walk(span, members=2)
        assert resync_to(crisp, people(*"abcde")) == ["+a", "+b", "=c", "=d", "=e"]

    def test_what_was_held_told_nobody(self, log: Log) -> None:
        log.put(people(*"abc"))
        crisp = Teller(log, limits=Limits(max_initial=2))
        assert crisp.open() is not None
        crisp.limits = Limits()
        assert resync_to(crisp, people(*"c")) == ["+c"]

    def test_what_was_held_and_approved_may_have(self, log: Log) -> None:
        log.put(people(*"abc"))
        crisp = Teller(log, limits=Limits(max_initial=2))
        held = crisp.open()
        assert held is not None
        log.spans.approve(held, reason=None, actor="ann@ops")
        opened = crisp.open()
        assert opened is not None
        crisp.walk(opened, members=1, killed=True)
        resync_to(crisp, people(*"c"))
        assert crisp.told == {"c"}

    def test_each_lane_gives_up_its_own(self, log: Log, crisp: Teller) -> None:
        log.put(people(*"abcdef"))
        open_span = crisp.open()
        assert open_span is not None
        assert open_span.lane is Lane.INCREMENTAL
        crisp.resync()
        log.put(people(*"abcdefg"))
        assert log.spans.superseded("crisp", Lane.INITIAL) == []
        assert log.spans.superseded("crisp", Lane.INCREMENTAL) == [open_span]
        assert not log.spans.wanted(open_span)
        assert waiting(log) == [], "the whole walk waits until the other is given up"
        log.spans.abandon(open_span, crisp.lease(Lane.INCREMENTAL))
        assert waiting(log) == [SpanKind.RESYNC]

    def test_only_that_one(self, log: Log, crisp: Teller) -> None:
        """Somebody else may have ended it, and opened the next in the other lane."""
        log.put(people(*"abcdef"))
        old = crisp.open()
        crisp.resync()
        log.put(people(*"abcdefg"))
        new = crisp.open()
        assert old is not None
        assert new is not None
        log.spans.abandon(old, crisp.lease(Lane.INCREMENTAL))
        assert crisp.open() == new

    def test_who_is_still_at_work_on_it_moves_nothing(self, log: Log, crisp: Teller) -> None:
        log.put(people(*"abcdef"))
        old = crisp.open()
        assert old is not None
        crisp.resync()
        log.put(people(*"abcdefg"))
        crisp.open()
        with pytest.raises(SpanEnded):
            crisp.walk(old)
        with pytest.raises(SpanEnded):
            log.spans.complete(old, crisp.lease(old.lane))
        assert log.spans.told_seq("crisp", log.key) == 1


class TestTheCapture:
    """A resync waits for one that began after the order, and nothing else is told meanwhile."""

    def test_it_waits(self, log: Log, crisp: Teller) -> None:
        log.put(people(*"abcdef"))
        crisp.resync()
        assert waiting(log) == []
        log.put(people(*"abcdef"))
        assert waiting(log) == [SpanKind.RESYNC]

    def test_one_that_found_nothing_new_is_enough(self, log: Log, crisp: Teller) -> None:
        crisp.resync()
        capture = log.capture(people(*"abcde"))
        log.snapshots.unchanged(capture, log.lease, started_at=log.clock.now)
        assert waiting(log) == [SpanKind.RESYNC]

    def test_one_that_was_at_work_is_not(self, log: Log, crisp: Teller) -> None:
        """It may have read what the resync is to put right."""
        began, staged = log.clock.now, log.stage(people(*"abcdef"))
        crisp.resync()
        log.snapshots.commit(staged, log.lease, started_at=began)
        assert waiting(log) == []
        assert log.snapshots.next_due(log.key) == log.clock.now

    def test_nor_one_that_failed(self, log: Log, crisp: Teller) -> None:
        crisp.resync()
        fail(log)
        assert waiting(log) == []
        assert log.snapshots.next_due(log.key) == log.clock.now, "so it is tried again"

    def test_nor_one_that_is_held_until_it_is_approved(self, log: Log, crisp: Teller) -> None:
        crisp.resync()
        held = log.hold({})
        assert waiting(log) == []
        due = log.snapshots.next_due(log.key)
        assert due is not None
        assert due > log.clock.now, "a source is not read again and again for it"
        log.approve(held, {})
        assert crisp.run() == ["-a", "-b", "-c", "-d", "-e"]

    def test_nor_the_approval_of_one_from_before(self, log: Log, crisp: Teller) -> None:
        held = log.hold({})
        crisp.resync()
        log.approve(held, {})
        assert waiting(log) == []

    def test_nor_the_approval_of_a_delivery_elsewhere(self, log: Log, crisp: Teller) -> None:
        segment = Teller(log, to="segment", limits=Limits(max_initial=1))
        held = segment.open()
        assert held is not None
        crisp.resync()
        log.spans.approve(held, reason=None, actor="ann@ops")
        assert waiting(log) == []

    def test_it_is_due_at_once(self, log: Log, crisp: Teller) -> None:
        assert log.snapshots.next_due(log.key) == log.clock.now + 2 * HOUR - MINUTE
        crisp.resync()
        asked = log.clock.now
        assert log.snapshots.next_due(log.key) == asked
        log.put(people(*"abcde"))
        assert log.snapshots.next_due(log.key) == asked + 3 * HOUR

    def test_an_order_of_before_the_clock_went_back_delays_nothing(
        self, log: Log, crisp: Teller
    ) -> None:
        planned = log.snapshots.next_due(log.key)
        log.clock.now += 5 * HOUR
        crisp.resync()
        log.clock.now -= 5 * HOUR
        assert log.snapshots.next_due(log.key) == planned

    def test_a_delivery_under_way_goes_on_until_then(self, log: Log, crisp: Teller) -> None:
        log.put(people(*"abcdefg"))
        span = crisp.open()
        assert span is not None
        crisp.resync()
        assert log.spans.wanted(span)
        crisp.finish(span)
        assert crisp.told == {*"abcdefg"}
        assert waiting(log) == []


class TestAskedAgain:
    def test_during_a_resync_it_starts_over(self, log: Log, crisp: Teller) -> None:
        crisp.resync()
        log.put(people(*"abcdef"))
        first = crisp.open()
        assert first is not None
        first = crisp.walk(first, members=3)
        crisp.resync()
        assert log.spans.wanted(first), "until it was captured"
        log.put(people(*"abcdef"))
        assert not log.spans.wanted(first)
        assert [call[1:] for call in crisp.run()] == [*"abcdef"]
        assert states(log) == ["completed", "abandoned", "completed"]

    def test_completed_meanwhile_it_is_done_once_more(self, log: Log, crisp: Teller) -> None:
        crisp.resync()
        log.put(people(*"abcdef"))
        first = crisp.open()
        assert first is not None
        crisp.resync()
        crisp.finish(first)
        assert scalar(log.database, "SELECT count(*) FROM resync") == 1
        log.put(people(*"abcdef"))
        assert len(crisp.run()) == 6
        assert scalar(log.database, "SELECT count(*) FROM resync") == 0

    def test_before_it_began_it_is_one(self, log: Log, crisp: Teller) -> None:
        crisp.resync()
        crisp.resync()
        log.put(people(*"abcde"))
        assert len(crisp.run()) == 5
        assert crisp.run() == []


class TestInterrupted:
    @pytest.mark.parametrize("members", [0, 2, 5])
    @pytest.mark.parametrize("killed", [False, True])
    def test_it_goes_on_while_captures_do(
        self, log: Log, crisp: Teller, members: int, killed: bool
    ) -> None:
        log.put(people(*"abcdefg"))
        crisp.resync()
        log.put(people(*"bcdefgh"))
        span = crisp.open()
        assert span is not None
        crisp.walk(span, members=members, killed=killed)
        log.put(people(*"z"), base=True)
        log.snapshots.prune(log.key, log.clock.now, log.lease)
        again = crisp.open()
        assert again is not None
        assert (again.id, again.to_seq) == (span.id, 3)
        crisp.finish(again)
        assert crisp.told == {*"bcdefgh"}
        crisp.run()
        assert crisp.told == {"z"}

    @pytest.mark.parametrize("position", ["", "a", "b", "bb", "c", "f", "z"])
    def test_the_walk_from_any_position(self, log: Log, crisp: Teller, position: str) -> None:
        span = between_parts(log, crisp)
        whole = list(log.spans.changes(span))
        rest = list(log.spans.changes(replace(span, position=position)))
        assert rest == [change for change in whole if change.user_id > position]


def between_parts(log: Log, crisp: Teller) -> Span:
    """An open resync after two that were given up."""
    for members in (people(*"bdf"), people(*"acf")):
        log.put(members)
        span = crisp.open()
        assert span is not None
        crisp.walk(span, members=2)
        crisp.resync()
    log.put(people(*"aefg"))
    opened = crisp.open()
    assert opened is not None
    return opened


class TestKept:
    """Pruning leaves what a resync needs, also one that was not asked for yet."""

    def test_the_way_from_all_that_was_told(self, log: Log, crisp: Teller) -> None:
        log.put(people(*"abdef"), base=True)
        span = crisp.open()
        assert span is not None
        crisp.walk(span, members=1)
        for members in (people(*"abf"), people(*"axf"), people(*"yf")):
            log.put(members, base=True)
            log.clock.now += 100 * HOUR
            log.snapshots.prune(log.key, log.clock.now, log.lease)
        resync_to(crisp, people("y"))
        assert crisp.told == {"y"}

    def test_after_it_only_what_it_pins(self, log: Log, crisp: Teller) -> None:
        between_parts(log, crisp)
        span = crisp.open()
        assert span is not None
        crisp.finish(span)
        log.put(people(*"aefgh"), base=True)
        crisp.run()
        log.snapshots.prune(log.key, log.clock.now + HOUR, log.lease)
        assert column(log.database, "SELECT DISTINCT part FROM chunk") == ["base"]


class TestRefused:
    def test_of_a_retired_audience(self, log: Log, crisp: Teller) -> None:
        execute(log.database, "UPDATE audience SET retired_at = last_captured_at")
        with pytest.raises(UsageError, match="retired"):
            crisp.resync()

    def test_one_that_was_asked_before_needs_no_capture_then(self, log: Log, crisp: Teller) -> None:
        """There will be none."""
        crisp.resync()
        execute(log.database, "UPDATE audience SET retired_at = last_captured_at")
        assert waiting(log) == [SpanKind.RESYNC]


def test_the_order_is_part_of_the_history(log: Log, crisp: Teller) -> None:
    crisp.resync()
    query = "SELECT kind, outcome, actor, counts FROM run ORDER BY id DESC LIMIT 1"
    with log.database.read() as connection:
        row = connection.exec_driver_sql(query).one()
    assert (row.kind, row.outcome, row.actor) == ("resync", "ordered", ANN.actor)
    assert all(word in str(row.counts) for word in ("crisp", "seen"))


def test_what_was_counted_is_not_opened_after_another_capture(log: Log, crisp: Teller) -> None:
    crisp.resync()
    log.put(people(*"abc"))
    (pending,) = log.spans.waiting("crisp", [log.key])
    log.put(people(*"ab"))
    lease = crisp.lease()
    how = {"tell": crisp.tell, "limits": crisp.limits, "lease": lease}
    assert log.spans.open(pending, "crisp", **how) is None  # type: ignore[arg-type]
    assert crisp.run()[-3:] == ["-c", "-d", "-e"]
    assert log.spans.told_seq("crisp", log.key) == Seq(3)


def waiting(log: Log) -> list[SpanKind]:
    return [found.kind for found in log.spans.waiting("crisp", [log.key])]


def states(log: Log) -> list[str]:
    return column(log.database, "SELECT state FROM span ORDER BY id")


def fail(log: Log) -> None:
    from audience_sync.domain.audience import Audience

    audience = Audience(key=log.key, name="VIP", source="s", query="q", destinations=())
    now = log.clock.now
    log.snapshots.failed(audience, now, "no such file", log.lease, started_at=now)
