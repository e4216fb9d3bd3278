"""Pause, resume, retire: who may go on, and what is kept of who ordered it."""

from __future__ import annotations

import pytest

from audience_sync.domain.audience import AudienceKey, Kind, OnRetire
from audience_sync.domain.guard import Limits
from audience_sync.domain.span import Span
from audience_sync.errors import LeaseLost, UsageError
from audience_sync.store.destinations import Destinations
from audience_sync.store.engine import Database
from audience_sync.store.retirement import Retirement
from tests.fakes.snapshot_log import HOUR, Log, column, new_lease, people, scalar
from tests.fakes.teller import ANN, Teller

LEAVE, TELL_FALSE = OnRetire.LEAVE, OnRetire.TELL_FALSE


@pytest.fixture
def log(database: Database) -> Log:
    return Log(database)


@pytest.fixture
def crisp(log: Log) -> Teller:
    """Told of ``a`` to ``d``."""
    log.put(people(*"abcd"))
    teller = Teller(log)
    teller.run()
    return teller


@pytest.fixture
def walk(log: Log, crisp: Teller) -> Span:
    """Under way, with one of two members told."""
    log.put(people(*"bcde"))
    span = crisp.open()
    assert span is not None
    return crisp.walk(span, members=1)


def last_run(log: Log) -> tuple[str, str, str, str | None]:
    query = "SELECT kind, outcome, actor, counts FROM run ORDER BY id DESC LIMIT 1"
    with log.database.read() as connection:
        row = connection.exec_driver_sql(query).one()
    return row.kind, row.outcome, row.actor, str(row.counts)


class TestPause:
    def test_of_an_audience_stops_its_walks(self, log: Log, crisp: Teller, walk: Span) -> None:
        assert log.spans.wanted(walk)
        crisp.orders.pause(log.key, "VIP", log.kind, ANN)
        assert not log.spans.wanted(walk)
        assert log.snapshots.left_alone(log.key) == "paused"
        assert crisp.orders.known()[log.key].paused_at == log.clock.now
        crisp.orders.resume(log.key, ANN)
        assert log.spans.wanted(walk)
        assert log.snapshots.left_alone(log.key) is None

    def test_of_a_destination_stops_what_goes_there(
        self, log: Log, crisp: Teller, walk: Span
    ) -> None:
        crisp.orders.stop("segment", ANN)
        assert log.spans.wanted(walk)
        crisp.orders.stop("crisp", ANN)
        assert not log.spans.wanted(walk)
        assert crisp.orders.stopped() == dict.fromkeys(["crisp", "segment"], log.clock.now)
        assert log.snapshots.left_alone(log.key) is None, "captures go on"
        crisp.orders.go_on("crisp", ANN)
        assert log.spans.wanted(walk)

    def test_resuming_ends_an_automatic_pause_too(self, log: Log, crisp: Teller) -> None:
        books = Destinations(log.database, log.clock)
        books.pause("crisp", "key refused (401)", 3600, crisp.lease())
        crisp.orders.go_on("crisp", ANN)
        assert books.paused("crisp") is None

    def test_of_one_that_was_never_captured(self, log: Log, crisp: Teller) -> None:
        crisp.orders.pause(AudienceKey("new"), "New", Kind.AUDIENCE, ANN)
        known = crisp.orders.known()[AudienceKey("new")]
        assert (known.name, known.seq, known.paused_at) == ("New", 0, log.clock.now)

    def test_each_is_part_of_the_history(self, log: Log, crisp: Teller) -> None:
        for order, kind in (
            (lambda: crisp.orders.pause(log.key, "VIP", log.kind, ANN), "pause"),
            (lambda: crisp.orders.resume(log.key, ANN), "resume"),
            (lambda: crisp.orders.stop("crisp", ANN), "pause"),
            (lambda: crisp.orders.go_on("crisp", ANN), "resume"),
        ):
            order()
            *what, counts = last_run(log)
            assert what == [kind, "ordered", "ann@ops"]
            assert "seen" in str(counts)

    def test_an_ended_span_is_not_wanted(self, log: Log, crisp: Teller, walk: Span) -> None:
        log.spans.abandon(walk, crisp.lease(walk.lane))
        assert not log.spans.wanted(walk)


def retire(log: Log, how: OnRetire = TELL_FALSE, *, staged: int | None = None) -> None:
    """Everybody leaves, unless it is told that nobody is to be told."""
    if how is TELL_FALSE and staged is None and log.kept[log.seq]:
        staged = log.stage({})
    book = Retirement(database=log.database, clock=log.clock, given=ANN)
    book.retire(log.key, staged, how, log.lease)
    log.kept[log.seq + (staged is not None)] = {} if staged else log.kept[log.seq]
    log.clock.now += HOUR


class TestRetire:
    def test_everybody_leaves_and_is_told(self, log: Log, crisp: Teller) -> None:
        retire(log)
        known = crisp.orders.known()[log.key]
        assert (known.members, known.seq, known.paused_at) == (0, 2, None)
        assert known.retired_at is not None
        assert log.snapshots.left_alone(log.key) == "retired"
        assert crisp.run() == ["-a", "-b", "-c", "-d"]
        assert crisp.run() == []

    def test_a_delivery_under_way_ends_in_a_whole_walk(
        self, log: Log, crisp: Teller, walk: Span
    ) -> None:
        """``e`` would be told ``true`` only to be told ``false`` after it."""
        retire(log)
        assert not log.spans.wanted(walk)
        assert crisp.run() == ["-a", "-b", "-c", "-d", "-e"]
        assert "+e" not in crisp.calls

    @pytest.mark.parametrize("members", [0, 1, 3])
    @pytest.mark.parametrize("killed", [False, True])
    def test_in_the_middle_of_the_first_delivery(
        self, log: Log, members: int, killed: bool
    ) -> None:
        log.put(people(*"abcd"))
        crisp = Teller(log)
        span = crisp.open()
        assert span is not None
        crisp.walk(span, members=members, killed=killed)
        retire(log)
        crisp.run()
        assert crisp.told == set()

    def test_a_first_delivery_that_is_held_told_nobody(self, log: Log) -> None:
        log.put(people(*"abcd"))
        crisp = Teller(log, limits=Limits(max_initial=1))
        crisp.open()
        retire(log)
        assert crisp.run() == []
        assert log.spans.held() == []
        assert scalar(log.database, "SELECT count(*) FROM resync") == 0

    def test_what_a_resync_would_have_told_is_told_as_well(self, log: Log, crisp: Teller) -> None:
        log.put(people(*"xy"))
        span = crisp.open()
        assert span is not None
        crisp.walk(span, members=5, killed=True)
        crisp.resync()
        retire(log)
        crisp.run()
        assert crisp.told == set()

    def test_who_was_rejected_is_told_too(self, log: Log) -> None:
        log.put(people(*"abc"))
        crisp = Teller(log)
        crisp.run(refuse="b")
        retire(log)
        assert crisp.run() == ["-a", "-b", "-c"]
        assert crisp.stand() == []

    def test_nobody_is_told_by_leave(self, log: Log, crisp: Teller, walk: Span) -> None:
        crisp.resync()
        retire(log, LEAVE)
        known = crisp.orders.known()[log.key]
        assert known.members == 4
        assert known.paused_at is not None
        assert not log.spans.wanted(walk)
        assert log.spans.unfinished("crisp") == []
        assert scalar(log.database, "SELECT count(*) FROM resync") == 0

    def test_where_nobody_is_a_member_what_waits_is_told(self, log: Log, crisp: Teller) -> None:
        log.put({})
        retire(log)
        assert crisp.run() == ["-a", "-b", "-c", "-d"]
        assert column(log.database, "SELECT max(seq) FROM snapshot") == [2]

    def test_killed_before_it_leaves_everything_as_it_was(
        self, log: Log, crisp: Teller, walk: Span
    ) -> None:
        log.stage({})
        assert crisp.orders.known()[log.key].retired_at is None
        assert log.spans.wanted(walk)
        log.snapshots.sweep(log.key, log.lease)
        crisp.finish(walk)
        assert crisp.told == {*"bcde"}
        assert log.members(2) == people(*"bcde")

    def test_all_of_it_or_nothing(
        self, log: Log, crisp: Teller, walk: Span, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from audience_sync.store import retirement

        class Killed(Exception):
            pass

        def killed(*_arguments: object, **_others: object) -> None:
            raise Killed

        held = log.hold({})
        before = column(log.database, "SELECT count(*) FROM run")
        monkeypatch.setattr(retirement, "record", killed)
        with pytest.raises(Killed):
            retire(log)
        assert crisp.orders.known()[log.key].retired_at is None
        assert log.snapshots.held() == [held]
        assert log.spans.wanted(walk)
        assert column(log.database, "SELECT count(*) FROM run") == before

    def test_whoever_lost_the_lease_retires_nobody(self, log: Log, crisp: Teller) -> None:
        staged = log.stage({})
        new_lease(log.database, log.lease.name)
        with pytest.raises(LeaseLost):
            retire(log, staged=staged)
        assert crisp.orders.known()[log.key].retired_at is None

    @pytest.mark.parametrize("how", OnRetire)
    def test_once(self, log: Log, crisp: Teller, how: OnRetire) -> None:
        retire(log, how)
        for again in OnRetire:
            with pytest.raises(UsageError, match="retired"):
                retire(log, again)
        known = crisp.orders.known()[log.key]
        assert (known.paused_at is not None) is (how is LEAVE)

    def test_what_is_held_is_discarded(self, log: Log, crisp: Teller) -> None:
        log.hold({})
        retire(log)
        assert log.snapshots.held() == []

    def test_no_order_follows(self, log: Log, crisp: Teller) -> None:
        retire(log)
        for order in (
            lambda: crisp.orders.pause(log.key, "VIP", log.kind, ANN),
            lambda: crisp.orders.resume(log.key, ANN),
            crisp.resync,
        ):
            with pytest.raises(UsageError, match="retired"):
                order()

    def test_what_was_never_captured_is_not_known(self, log: Log) -> None:
        with pytest.raises(UsageError):
            retire(log)

    def test_it_is_part_of_the_history(self, log: Log, crisp: Teller) -> None:
        retire(log)
        *what, counts = last_run(log)
        assert what == ["retire", "retired", "ann@ops"]
        assert all(word in str(counts) for word in ("tell_false", "seen"))
        assert scalar(log.database, "SELECT snapshot_id FROM run ORDER BY id DESC LIMIT 1")

    def test_approved_exits_leave_the_window(self, log: Log, crisp: Teller) -> None:
        retire(log)
        assert log.snapshots.window(log.key, log.clock.now).unapproved_exits == 0
