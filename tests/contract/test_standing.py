"""Since when a destination is behind, as ``status`` and the metrics say it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from audience_sync.app import App
from audience_sync.domain.audience import AudienceKey, OnRetire
from audience_sync.domain.quota import Lane
from audience_sync.standing.overview import overview
from audience_sync.standing.values import Place
from audience_sync.store.retirement import Retirement
from audience_sync.store.successes import rejected
from tests.fakes.destination import FakeDestination
from tests.fakes.snapshot_log import HOUR, START, Log, new_lease, people
from tests.fakes.teller import ANN, Teller
from tests.fakes.wired import wired


@pytest.fixture
def app(store_url: str, tmp_path: Path) -> Iterator[App]:
    made = wired(tmp_path, store_url)
    yield made
    made.close()


@pytest.fixture
def log(app: App) -> Log:
    return Log(app.database)


@pytest.fixture
def calls(log: Log) -> Teller:
    return Teller(log, to="calls")


def place(app: App) -> Place:
    (standing,) = overview(app, START).audiences
    return standing.destinations[0]


def up_to_date_at(app: App) -> datetime | None:
    return place(app).up_to_date_at


def unchanged(log: Log) -> datetime:
    """A capture that found nothing new; its cycle time."""
    at = log.clock.now
    log.snapshots.unchanged(log.capture(log.kept[log.seq]), log.lease, started_at=at)
    log.clock.now += HOUR
    return at


def failed(app: App, log: Log) -> None:
    audience, now = app.audiences[log.key].audience, log.clock.now
    log.snapshots.failed(audience, now, "the file is gone", log.lease, started_at=now)
    log.clock.now += HOUR


class TestUpToDate:
    def test_never_before_the_first_delivery_has_ended(
        self, app: App, log: Log, calls: Teller
    ) -> None:
        assert up_to_date_at(app) is None
        log.put(people(*"abc"))
        assert up_to_date_at(app) is None
        span = calls.open()
        assert span is not None
        calls.walk(span, members=2)
        assert up_to_date_at(app) is None

    def test_when_a_delivery_ended(self, app: App, log: Log, calls: Teller) -> None:
        log.put(people(*"abc"))
        calls.run()
        assert up_to_date_at(app) == log.clock.now > START

    def test_renewed_by_each_capture_that_finds_nothing(
        self, app: App, log: Log, calls: Teller
    ) -> None:
        log.put(people(*"abc"))
        calls.run()
        log.clock.now += HOUR
        assert unchanged(log) == up_to_date_at(app)
        assert unchanged(log) == up_to_date_at(app)
        assert place(app).state == "ok"

    def test_stays_at_the_last_capture_before_what_waits(
        self, app: App, log: Log, calls: Teller
    ) -> None:
        log.put(people(*"abc"))
        calls.run()
        unchanged(log)
        last = unchanged(log)
        log.put(people(*"abcd"))
        log.put(people(*"abcde"))
        unchanged(log)
        assert place(app).state == "waiting"
        assert up_to_date_at(app) == last
        span = calls.open()
        assert span is not None
        calls.walk(span, members=1)
        assert place(app).state == "open"
        assert up_to_date_at(app) == last
        calls.finish(span)
        assert up_to_date_at(app) == log.clock.now

    def test_not_renewed_by_a_capture_that_is_held_or_failed(
        self, app: App, log: Log, calls: Teller
    ) -> None:
        log.put(people(*"abc"))
        calls.run()
        last = unchanged(log)
        failed(app, log)
        assert up_to_date_at(app) == last
        log.hold({})
        assert place(app).state == "ok"
        assert up_to_date_at(app) == last

    def test_what_was_approved_and_told_counts(self, app: App, log: Log, calls: Teller) -> None:
        log.put(people(*"abc"))
        calls.run()
        before = unchanged(log)
        held = log.hold(people("a"))
        log.approve(held, people("a"))
        assert up_to_date_at(app) == before
        calls.run()
        delivered = log.clock.now
        log.put(people("ab"))
        assert up_to_date_at(app) == delivered > held.captured_at

    def test_in_doubt_during_a_resync(self, app: App, log: Log, calls: Teller) -> None:
        log.put(people(*"abc"))
        calls.run()
        delivered = log.clock.now
        unchanged(log)
        calls.resync()
        unchanged(log)
        assert place(app).state == "resync"
        assert up_to_date_at(app) == delivered
        span = calls.open()
        assert span is not None
        calls.walk(span, members=1)
        assert up_to_date_at(app) == delivered
        calls.finish(span)
        assert up_to_date_at(app) == log.clock.now

    def test_of_each_audience_by_itself(
        self, store_url: str, tmp_path: Path, log: Log, calls: Teller
    ) -> None:
        other = Log(log.database, key=AudienceKey("other"), clock=log.clock)
        log.put(people(*"abc"))
        calls.run()
        last = unchanged(log)
        for members in ("x", "xy"):
            other.put(people(*members))
            Teller(other, to="calls").run()
        unchanged(other)
        log.put(people(*"ab"))
        calls.open()
        both = wired(tmp_path, store_url, {"vip": ["calls"], "other": ["calls"]})
        vip, second = overview(both, START).audiences
        assert vip.destinations[0].up_to_date_at == last
        assert second.destinations[0].up_to_date_at == second.captured_at > last
        both.close()


@pytest.mark.parametrize("delivered", [False, True])
def test_of_an_audience_that_left_nothing_waits(
    app: App, log: Log, calls: Teller, delivered: bool
) -> None:
    log.put(people(*"abc"))
    if delivered:
        calls.run()
        log.put(people(*"abcd"))
    book = Retirement(database=app.database, clock=log.clock, given=ANN)
    book.retire(log.key, None, OnRetire.LEAVE, log.lease)
    found = place(app)
    assert (found.state, found.total, found.remaining) == ("left", 0, 0)
    assert found.told_seq == (1 if delivered else None)


def test_members_that_stand_rejected_are_counted(app: App, log: Log, calls: Teller) -> None:
    log.put(people(*"abcdef"))
    calls.run(refuse="bd")
    assert rejected(app.database) == {("vip", "calls"): 2}
    Teller(log, to="crisp").run(refuse="e", outcome="skipped")
    assert rejected(app.database) == {("vip", "calls"): 2}
    calls.retry()
    calls.run(refuse="b")
    assert rejected(app.database) == {("vip", "calls"): 1}
    calls.orders.retry([log.key], ["calls"], ANN)
    calls.run()
    assert rejected(app.database) == {}


class TestEta:
    """START is six in the morning; the initial lane has 80 calls a day."""

    @pytest.fixture
    def two(self, store_url: str, tmp_path: Path) -> Iterator[App]:
        made = wired(tmp_path, store_url, {"vip": ["calls"], "winback": ["calls"]})
        made.destinations["calls"].quota = 100
        yield made
        made.close()

    def etas(self, app: App) -> dict[str, datetime | None]:
        return {s.key: s.destinations[0].eta for s in overview(app, START).audiences}

    def first_delivery(self, app: App, key: str, members: int) -> None:
        log = Log(app.database, AudienceKey(key), rows_per_chunk=1000)
        log.put(people(*(f"u{number:04}" for number in range(members))))
        assert Teller(log, to="calls").open() is not None

    def test_under_the_quota_and_after_those_before_it(self, two: App) -> None:
        self.first_delivery(two, "winback", 200)
        self.first_delivery(two, "vip", 200)
        etas = self.etas(two)
        assert {key: eta and (eta - START).days for key, eta in etas.items()} == {
            "winback": 1,  # 80, 80, and 40 soon after the second midnight
            "vip": 3,
        }
        assert etas["vip"] is not None
        assert (etas["vip"].hour, etas["vip"].minute) == (0, 0)

    def test_those_that_are_walked_together_are_done_together(self, two: App) -> None:
        together = FakeDestination(name="calls", quota=100, bundles=True)
        two.destinations["calls"] = together  # type: ignore[index]
        self.first_delivery(two, "winback", 20)
        self.first_delivery(two, "vip", 200)
        etas = self.etas(two)
        assert etas["vip"] == etas["winback"]
        assert etas["vip"] is not None
        assert (etas["vip"] - START).days == 1, "220 of 80 a day"

    def test_what_is_used_of_today_counts(self, two: App) -> None:
        self.first_delivery(two, "vip", 20)
        assert self.etas(two)["vip"] < START + HOUR  # type: ignore[operator]
        lease = new_lease(two.database, "deliver:calls:initial")
        share = {"quota": 100, "reserve": 0.2, "lease": lease}
        two.quotas.reserve("calls", Lane.INITIAL, START.date(), 70, **share)  # type: ignore[arg-type]
        assert self.etas(two)["vip"] > START.replace(hour=23)  # type: ignore[operator]
        (calls,) = overview(two, START).destinations
        assert calls.quota is not None
        assert (calls.quota.used, calls.quota.limit) == (70, 100)
        assert calls.quota.by_lane == {Lane.INITIAL: 70, Lane.INCREMENTAL: 0}
