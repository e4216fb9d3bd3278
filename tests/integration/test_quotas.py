"""Daily quotas over a real store: never more than there is, nobody told twice, all told at last."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from audience_sync.domain.quota import Lane
from audience_sync.errors import BadCalls, LeaseLost, QuotaUsed, RetryLater
from audience_sync.pipeline import send
from audience_sync.pipeline.allowance import Taken
from audience_sync.pipeline.delivered import Delivered
from audience_sync.store.leases import Leases
from audience_sync.store.quotas import Quotas
from tests.fakes.destination import FakeDestination, accept
from tests.fakes.snapshot_log import START, column, new_lease, people, scalar
from tests.integration.test_lanes import OLD, Station, users

DAY = timedelta(days=1)
MIDNIGHT = START.replace(hour=0)


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    made = Station(path=tmp_path / "state.db", to=[FakeDestination(quota=100, max_calls=7)])
    yield made
    made.database.close()


@pytest.fixture
def to(station: Station) -> FakeDestination:
    return station.to[0]


@pytest.fixture
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(sending: send.Sending, _seconds: float, _taken: Taken) -> None:
        if sending.stop.is_set():
            raise send.Stopped("stopping")

    monkeypatch.setattr(send.Sending, "_sleep", sleep)


def used(station: Station, day: date | None = None) -> dict[Lane, int]:
    return dict(Quotas(station.database).used("fake", day or station.clock.now.date()))


def tomorrow(station: Station) -> None:
    station.clock.now = station.clock.now.replace(hour=0) + DAY


def sent(to: FakeDestination) -> int:
    return sum(len(request) for request in to.requests)


def only(delivered: Sequence[Delivered]) -> Delivered:
    (one,) = delivered
    return one


# Days


def test_the_first_delivery_goes_on_day_after_day(station: Station, to: FakeDestination) -> None:
    station.vip.put(people(*users(0, 205)))
    first = only(station.run())
    assert (first.outcome, first.accepted) == ("quota used", 80)
    assert isinstance(first.error, QuotaUsed)
    assert first.error.exit_code == 0
    assert first.error.until == MIDNIGHT + DAY
    assert first.done_at is not None
    assert first.done_at.date() == START.date() + 2 * DAY
    assert used(station) == {Lane.INITIAL: 80}
    before = len(to.requests)
    again = only(station.run())
    assert (again.outcome, again.accepted, len(to.requests)) == ("quota used", 0, before)
    tomorrow(station)
    assert only(station.run()).accepted == 80
    tomorrow(station)
    last = only(station.run())
    assert (last.outcome, last.accepted, last.done_at) == ("completed", 45, None)
    assert used(station) == {Lane.INITIAL: 45}, "what was not needed is given back"
    assert sorted(to.told) == users(0, 205), "each once"


def test_a_used_up_quota_is_no_pause_and_no_failure(station: Station) -> None:
    station.vip.put(people(*users(0, 100)))
    assert only(station.run()).failed is False
    assert station.books.paused("fake") is None
    assert scalar(station.database, "SELECT outcome FROM run WHERE kind = 'delivery'") == (
        "quota used"
    )
    assert column(station.database, "SELECT rejected + skipped FROM span") == [0]


def test_changes_are_told_while_the_first_delivery_has_used_its_part(
    station: Station, to: FakeDestination
) -> None:
    station.vip.put(people(*users(0, 50)))
    station.run()
    tomorrow(station)
    station.old.put(people(*users(1000, 1500)))
    assert only(station.run()).accepted == 80
    station.vip.put(people(*users(0, 62)))
    changes, initial = station.run()
    assert (changes.outcome, changes.accepted) == ("completed", 12)
    assert (initial.outcome, initial.accepted) == ("quota used", 0)
    station.vip.put(people(*users(0, 90)))
    changes, _ = station.run()
    assert (changes.outcome, changes.accepted) == ("quota used", 8)
    assert used(station) == {Lane.INITIAL: 80, Lane.INCREMENTAL: 20}
    assert len(to.told) == len(set(to.told)) == 50 + 100


def test_changes_may_use_all_of_it(station: Station) -> None:
    station.vip.put(people(*users(0, 5)))
    station.run()
    tomorrow(station)
    station.old.put(people(*users(1000, 1500)))
    station.vip.put(people(*users(0, 98)))
    changes, initial = station.run()
    assert (changes.accepted, initial.accepted) == (93, 7)
    assert used(station) == {Lane.INITIAL: 7, Lane.INCREMENTAL: 93}


def test_those_behind_wait_for_those_before(station: Station) -> None:
    station.old.put(people(*users(0, 160)))
    station.vip.put(people(*users(0, 240)))
    first, second = station.run()
    assert [first.outcome, second.outcome] == ["quota used", "quota used"]
    assert first.done_at is not None
    assert second.done_at is not None
    assert [first.done_at.date(), second.done_at.date()] == [
        START.date() + number * DAY for number in (1, 4)
    ]


def test_midnight_in_the_middle_of_a_run(station: Station, to: FakeDestination) -> None:
    """What is sent after midnight counts for the new day, also what was taken before."""
    by_day: Counter[date] = Counter()

    def answer(user_ids: Sequence[str]) -> None:
        by_day[station.clock.now.date()] += len(user_ids)
        if len(to.requests) == 5:
            tomorrow(station)

    to.answer, to.concurrency = answer, 1
    station.vip.put(people(*users(0, 200)))
    assert only(station.run()).accepted == 7 * 5 + 80
    assert list(by_day.values()) == [35, 80]
    assert used(station) == {Lane.INITIAL: 80}


# Members, batches, repeats


def test_a_member_is_told_whole_or_tomorrow(station: Station, to: FakeDestination) -> None:
    to.with_track, to.quota, to.reserve = True, 9, 0.2
    station.vip.put(people(*users(0, 4)))
    assert only(station.run()).accepted == 3
    assert used(station) == {Lane.INITIAL: 6}, "a call that is left over is given back"
    assert only(station.run()).outcome == "quota used"
    tomorrow(station)
    assert only(station.run()).outcome == "completed"


def test_the_refused_before_the_cut_are_handled_with_it(
    station: Station, to: FakeDestination
) -> None:
    to.quota, to.reserve, to.max_calls = 5, 0.2, 10
    to.refused = ["u00001", "u00004", "u00005", "u00007", "u00009"]
    station.vip.put(people(*users(0, 10)))
    first = only(station.run())
    assert (first.accepted, first.rejected, first.span.position) == (4, 4, "u00007")
    tomorrow(station)
    assert only(station.run()).outcome == "completed"
    assert sorted(to.told) == sorted(set(users(0, 10)) - {*to.refused})


def test_nobody_goes_beyond_one_who_must_wait(station: Station, to: FakeDestination) -> None:
    """Also those do not who cost nothing, as the destination would refuse them."""
    to.quota, to.reserve, to.max_calls = 5, 0.2, 2
    to.refused = users(5, 9)
    station.vip.put(people(*users(0, 10)))
    first = only(station.run())
    assert (first.accepted, first.rejected, first.span.position) == (4, 0, "u00003")
    tomorrow(station)
    last = only(station.run())
    assert (last.outcome, last.accepted, last.rejected) == ("completed", 2, 4)


def test_a_day_that_is_used_up_is_seen_before_anything_is_read(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    station.vip.put(people(*users(0, 100)))
    station.run()
    monkeypatch.setattr(station.spans, "changes", None)
    monkeypatch.setattr(Quotas, "reserve", None)
    assert only(station.run()).outcome == "quota used"


@pytest.mark.usefixtures("_no_waits")
def test_a_request_that_is_repeated_is_counted_again(station: Station, to: FakeDestination) -> None:
    def answer(_user_ids: Sequence[str]) -> None:
        if len(to.requests) in (2, 3):
            raise RetryLater("no complete answer")
        if len(to.requests) == 5:
            raise RetryLater("refused the connection", unsent=True)

    to.answer, to.concurrency = answer, 1
    station.vip.put(people(*users(0, 21)))
    assert only(station.run()).outcome == "completed"
    assert used(station) == {Lane.INITIAL: 21 + 2 * 7}


@pytest.mark.usefixtures("_no_waits")
def test_halves_of_a_refused_batch_are_counted(station: Station, to: FakeDestination) -> None:
    def answer(user_ids: Sequence[str]) -> None:
        if "u00003" in user_ids:
            raise BadCalls("request refused (400)")

    to.answer = answer
    station.vip.put(people(*users(0, 7)))
    done = only(station.run())
    assert (done.accepted, done.rejected) == (6, 1)
    assert used(station) == {Lane.INITIAL: sent(to)}


@pytest.mark.usefixtures("_no_waits")
def test_a_destination_that_is_down_can_use_up_a_day_and_no_more(
    station: Station, to: FakeDestination
) -> None:
    def answer(_user_ids: Sequence[str]) -> None:
        raise RetryLater("unavailable (503)")

    to.answer = answer
    station.vip.put(people(*users(0, 100)))
    for _ in range(20):
        station.run()
    assert used(station)[Lane.INITIAL] <= 80
    assert sent(to) <= 80
    to.answer = accept
    tomorrow(station)
    assert only(station.run()).accepted == 80


def test_what_a_stopped_run_did_not_send_is_given_back(
    station: Station, to: FakeDestination
) -> None:
    """Not what was still unused of a block, nor what batches wait with for their turn."""

    def answer(_user_ids: Sequence[str]) -> None:
        if len(to.requests) >= 3:
            time.sleep(0.1)  # by then another batch waits for its turn
            station.stop.set()

    to.answer, to.quota, to.rate = answer, 100_000, 10.0
    station.vip.put(people(*users(0, 500)))
    assert only(station.run()).outcome == "stopped"
    assert used(station) == {Lane.INITIAL: sent(to)}


def test_a_run_that_lost_its_lease_gives_nothing_back(
    station: Station, to: FakeDestination
) -> None:
    to.quota = 100_000

    def answer(_user_ids: Sequence[str]) -> None:
        if len(to.requests) == 4:
            new_lease(station.database, "deliver:fake:initial")

    to.answer, to.concurrency = answer, 1
    station.vip.put(people(*users(0, 500)))
    with pytest.raises(LeaseLost):
        station.run()
    assert used(station) == {Lane.INITIAL: 1000}, "a block that may have been sent is used"


def test_a_quick_destination_costs_no_write_for_each_request(
    station: Station, to: FakeDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    reserve = Quotas.reserve

    def counted(quotas: Quotas, *arguments: Any, **named: Any) -> int:
        granted = reserve(quotas, *arguments, **named)
        writes.append(granted)
        return granted

    monkeypatch.setattr(Quotas, "reserve", counted)
    to.quota = 100_000
    station.vip.put(people(*users(0, 3500)))
    assert only(station.run()).accepted == 3500
    assert writes == [1000] * 4
    assert used(station) == {Lane.INITIAL: 3500}


def test_without_a_quota_nothing_is_written(station: Station, to: FakeDestination) -> None:
    to.quota = None
    station.vip.put(people(*users(0, 300)))
    assert only(station.run()).outcome == "completed"
    assert scalar(station.database, "SELECT count(*) FROM quota") == 0


# Everything at once


@pytest.mark.usefixtures("_no_waits", "in_line")
@pytest.mark.parametrize("seed", range(8))
def test_any_days(station: Station, to: FakeDestination, seed: int) -> None:
    """Captures, answers of any kind and stops, over many days; then quiet ones."""
    draw = random.Random(seed)
    to.quota, to.reserve = draw.randint(8, 120), draw.choice([0.05, 0.2, 0.5, 0.9])
    to.with_track = draw.random() < 0.5
    to.concurrency, to.max_calls = draw.randint(1, 6), draw.randint(2, 30)
    to.bundles = draw.random() < 0.4
    each, by_day = 1 + to.with_track, Counter[date]()
    costs = 1 if to.bundles else each
    undisturbed = draw.random() < 0.5
    faulty = not undisturbed

    def answer(user_ids: Sequence[str]) -> None:
        chance = draw.random()
        time.sleep(chance / 2000)
        if chance < 0.02 and faulty:
            raise RetryLater("refused the connection", unsent=True)
        with to.lock:
            by_day[station.clock.now.date()] += costs * len(user_ids)
        if chance < 0.05 and faulty:
            raise RetryLater("no complete answer")
        if chance < 0.06 and faulty and len(user_ids) > 1:
            raise BadCalls("request refused (413)")
        if chance > 0.98:
            station.stop.set()

    to.answer = answer
    for _ in range(12):
        log = draw.choice([station.vip, station.old])
        if draw.random() < 0.6:
            log.put(people(*draw.sample(users(0, 120), draw.randint(20, 120))))
        for _ in range(draw.randint(1, 3)):
            station.run(only=draw.choice([None, {OLD}]))
            station.stop.clear()
        tomorrow(station)
    faulty = False
    days = 0
    while station.run():
        station.stop.clear()
        days += 1
        assert days < 400, "it does not come to an end"
        tomorrow(station)
    assert max(by_day.values(), default=0) <= to.quota
    assert column(station.database, "SELECT DISTINCT state FROM span") in (["completed"], [])
    sums = "SELECT max(total) FROM (SELECT sum(reserved) AS total FROM quota GROUP BY day) AS days"
    assert (scalar(station.database, sums) or 0) <= to.quota
    assert all(len(bodies) == 1 for bodies in to.bodies().values())
    accepted = sum(column(station.database, "SELECT accepted FROM span"))
    assert each * accepted == len(to.bodies())
    sent_bodies = sum(len(member.bodies) for member in to.accepted)
    assert sent_bodies == len(to.bodies()) or not undisturbed, "told twice"


def test_two_lanes_at_once_in_two_processes_share_a_day(station: Station) -> None:
    """The other process is at work in its lane, and has taken what it needs."""
    station.vip.put(people(*users(0, 5)))
    station.run()
    tomorrow(station)
    station.old.put(people(*users(1000, 1500)))
    with Leases(station.database).hold("deliver:fake:incremental") as lease:
        taken = {"quota": 100, "reserve": 0.2, "lease": lease}
        quotas, today = Quotas(station.database), station.clock.now.date()
        assert quotas.reserve("fake", Lane.INCREMENTAL, today, 60, **taken) == 60  # type: ignore[arg-type]
        assert only(station.run()).accepted == 40
        assert quotas.reserve("fake", Lane.INCREMENTAL, today, 60, **taken) == 0  # type: ignore[arg-type]
