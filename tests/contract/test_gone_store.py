"""Audiences and destinations that the configuration no longer brings together, and their return."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from audience_sync.domain.audience import LEAVING, AudienceKey, OnRetire
from audience_sync.domain.span import SpanKind, SpanState
from audience_sync.errors import SpanEnded, StoreFailed
from audience_sync.store.engine import Database
from audience_sync.store.gone import Names, settle
from audience_sync.store.retirement import Retirement
from tests.fakes.snapshot_log import HOUR, Log, column, execute, people, scalar
from tests.fakes.teller import ANN, Teller

KEEP = 5 * HOUR
BASES = "SELECT seq FROM snapshot WHERE state = 'current' AND has_base ORDER BY seq"


@pytest.fixture
def log(database: Database) -> Log:
    made = Log(database)
    made.snapshots._keep = KEEP
    return made


@pytest.fixture
def crisp(log: Log) -> Teller:
    """Told of ``a`` to ``e``."""
    log.put(people(*"abcde"))
    teller = Teller(log)
    teller.run()
    return teller


def configured(log: Log, *names: Names) -> None:
    settle(log.database, names, log.clock.now)


def prune(log: Log) -> None:
    log.snapshots.prune(log.key, log.clock.now, log.lease)


def gone_for(log: Log, time: timedelta, *members: str) -> None:
    """Not told of for so long, while captures go on elsewhere."""
    configured(log)
    for some in members:
        log.put(people(*some), base=True)
    log.clock.now += time
    prune(log)


def back(log: Log) -> None:
    configured(log, (log.key, "crisp"))


class TestSettle:
    def test_what_is_together_is_not_gone(self, log: Log, crisp: Teller) -> None:
        configured(log, (log.key, "crisp"), (AudienceKey("new"), "crisp"), (log.key, "segment"))
        assert scalar(log.database, "SELECT count(*) FROM gone") == 0

    def test_only_what_was_begun_can_be_gone(self, log: Log) -> None:
        log.put(people("a"))
        configured(log)
        assert scalar(log.database, "SELECT count(*) FROM gone") == 0
        Teller(log).open()
        configured(log)
        assert scalar(log.database, "SELECT count(*) FROM gone") == 1

    def test_it_is_gone_since_it_was_first_missed(self, log: Log, crisp: Teller) -> None:
        configured(log)
        since = scalar(log.database, "SELECT since FROM gone")
        log.clock.now += HOUR
        configured(log)
        assert scalar(log.database, "SELECT since FROM gone") == since

    def test_by_pair(self, log: Log, crisp: Teller) -> None:
        Teller(log, to="segment").run()
        configured(log, (log.key, "segment"))
        query = "SELECT name FROM destination JOIN gone ON destination_id = destination.id"
        assert column(log.database, query) == ["crisp"]

    def test_writes_nothing_when_nothing_changed(self, log: Log, crisp: Teller) -> None:
        """Every command does it: none may wait for a writer because of it."""
        configured(log)
        with log.database.write() as connection:
            connection.exec_driver_sql("UPDATE audience SET name = 'locked'")
            done = threading.Thread(target=configured, args=(log,))
            done.start()
            done.join(5)
            assert not done.is_alive()


class TestWithinKeep:
    def test_all_that_was_missed_is_told_and_nothing_else(self, log: Log, crisp: Teller) -> None:
        gone_for(log, HOUR, "abcdef", "bcdfx")
        back(log)
        assert scalar(log.database, "SELECT count(*) FROM gone") == 0
        assert crisp.run() == ["-a", "-e", "+f", "+x"]

    def test_also_after_longer_if_nobody_pruned(self, log: Log, crisp: Teller) -> None:
        configured(log)
        log.put(people("b"))
        log.clock.now += 10 * KEEP
        back(log)
        prune(log)
        assert crisp.run() == ["-a", "-c", "-d", "-e"]

    def test_an_open_delivery_goes_on(self, log: Log, crisp: Teller) -> None:
        log.put(people(*"abcdefg"))
        span = crisp.open()
        assert span is not None
        crisp.walk(span, members=1)
        gone_for(log, HOUR, "abcdefgh")
        back(log)
        assert crisp.run() == ["+g"]
        assert crisp.run() == ["+h"]

    def test_at_exactly_keep_it_still_pins(self, log: Log, crisp: Teller) -> None:
        gone_for(log, KEEP - 2 * HOUR, "bcde", "cde")
        assert column(log.database, "SELECT released_at FROM gone") == [None]
        log.clock.now += timedelta(seconds=1)
        prune(log)
        assert column(log.database, "SELECT released_at FROM gone") != [None]


class TestAfterKeep:
    def test_nothing_is_pinned_for_it(self, log: Log, crisp: Teller) -> None:
        gone_for(log, KEEP, "bcde", "cde", "de")
        assert column(log.database, BASES) == [4]
        assert column(log.database, "SELECT DISTINCT part FROM chunk") == ["base"]

    def test_others_keep_what_they_need(self, log: Log, crisp: Teller) -> None:
        segment = Teller(log, to="segment")
        segment.run()
        configured(log, (log.key, "segment"))
        for some in ("bcde", "cde"):
            log.put(people(*some), base=True)
        log.clock.now += KEEP
        prune(log)
        assert column(log.database, "SELECT released_at FROM gone") != [None]
        assert segment.run() == ["-a", "-b"]

    def test_an_open_delivery_is_given_up(self, log: Log, crisp: Teller) -> None:
        crisp.run(refuse="c")
        log.put(people(*"abcdefg"))
        span = crisp.open()
        assert span is not None
        gone_for(log, KEEP, "abcdefgh")
        assert column(log.database, "SELECT state FROM span ORDER BY id")[-1] == "abandoned"
        with pytest.raises(SpanEnded):
            log.spans.complete(span, crisp.lease(span.lane))

    def test_everybody_is_told_anew_when_it_comes_back(self, log: Log, crisp: Teller) -> None:
        gone_for(log, KEEP, "bcdef", "cdefg", "defgh")
        back(log)
        assert log.spans.waiting("crisp", [log.key]) == [], "after the next capture"
        due = log.snapshots.next_due(log.key)
        assert due is not None
        assert due <= log.clock.now
        log.put(people(*"efghi"))
        span = crisp.open()
        assert span is not None
        assert span.kind is SpanKind.RESYNC
        crisp.finish(span)
        # Who left before the oldest snapshot that is kept (#4) is not known any more.
        assert crisp.told == {*"abc", *"efghi"}
        assert [call for call in crisp.calls if call[0] == "-"] == ["-d"]
        log.put(people(*"fghi"))
        assert crisp.run() == ["-e"]

    def test_also_when_it_was_in_the_middle_of_its_first_delivery(self, log: Log) -> None:
        crisp = Teller(log)
        log.put(people(*"abcde"))
        span = crisp.open()
        assert span is not None
        crisp.walk(span, members=2, killed=True)
        gone_for(log, KEEP, "bcdef", "bdefg", "bdfgh")
        back(log)
        log.put(people(*"fghi"))
        crisp.run()
        assert crisp.told == {*"a", *"fghi"}

    @pytest.mark.parametrize("members", [0, 2])
    def test_retired_meanwhile_what_it_was_told_is_taken_back(self, log: Log, members: int) -> None:
        """It need not come back for that. The last one was accepted and never committed."""
        crisp = Teller(log)
        log.put(people(*"abcde"))
        span = crisp.open()
        assert span is not None
        crisp.walk(span, members=members + 1, killed=True)
        gone_for(log, 2 * KEEP)
        assert column(log.database, "SELECT state FROM span") == ["abandoned"]
        book = Retirement(database=log.database, clock=log.clock, given=ANN)
        book.retire(log.key, log.stage({}), OnRetire.TELL_FALSE, log.lease)
        crisp.tell = LEAVING
        crisp.run()
        assert crisp.told == set()

    def test_what_was_only_held_is_not_told(self, log: Log) -> None:
        from audience_sync.domain.guard import Limits

        crisp = Teller(log, limits=Limits(max_initial=2))
        log.put(people(*"abcde"))
        crisp.open()
        gone_for(log, KEEP, "bcdef", "bdefg")
        back(log)
        log.put(people(*"fghi"))
        span = crisp.open()
        assert span is not None
        assert (span.state, span.books.total) == (SpanState.HELD, 4)

    def test_it_stays_so_through_many_prunes(self, log: Log, crisp: Teller) -> None:
        gone_for(log, KEEP, "bcdef", "cdefg")
        for some in ("defgh", "efghi", "fghij"):
            log.put(people(*some), base=True)
            log.clock.now += KEEP
            prune(log)
        back(log)
        log.put(people(*"ghij"))
        crisp.run()
        assert crisp.told == {*"abcde", *"ghij"}
        assert "-f" in crisp.calls

    def test_damage_is_still_an_error(self, log: Log, crisp: Teller) -> None:
        """What is missing of what was to be kept is never taken for long ago."""
        log.put(people(*"bcde"))
        log.put(people(*"cde"))
        crisp.resync()
        log.put(people(*"de"))
        execute(
            log.database,
            "DELETE FROM chunk WHERE part = 'changes' AND snapshot_id IN "
            "(SELECT id FROM snapshot WHERE seq = 2)",
        )
        with pytest.raises(StoreFailed, match="no longer kept"):
            crisp.run()


class TestAtOnce:
    """Who prunes and who comes back at the same moment take turns."""

    def test_it_is_let_go_before_it_is_back(self, log: Log, crisp: Teller) -> None:
        configured(log)
        coming = threading.Thread(target=back, args=(log,))
        with log.database.write() as connection:
            # As prune does it.
            connection.exec_driver_sql(
                f"SELECT id FROM audience{'' if log.database.is_sqlite else ' FOR UPDATE'}"
            )
            coming.start()
            coming.join(0.5)
            assert coming.is_alive(), "it did not wait"
            connection.exec_driver_sql("UPDATE gone SET released_at = since")
        coming.join(20)
        assert not coming.is_alive()
        assert scalar(log.database, "SELECT count(*) FROM resync") == 1
        assert scalar(log.database, "SELECT count(*) FROM gone") == 0
