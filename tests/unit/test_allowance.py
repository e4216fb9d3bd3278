"""What a lane takes of a day's quota, across midnight and between threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest

from audience_sync.domain.quota import Lane
from audience_sync.errors import LeaseLost, QuotaUsed, StoreFailed
from audience_sync.pipeline.allowance import Allowance
from audience_sync.pipeline.ports.leases import Lease
from tests.fakes.destination import FakeDestination
from tests.fakes.quotas import FakeQuotas
from tests.fakes.spans import FakeLease

EVENING = datetime(2026, 10, 7, 23, 59, tzinfo=UTC)
TODAY, TOMORROW = EVENING.date(), EVENING.date() + timedelta(days=1)


class Day:
    """An allowance of the initial lane, and the quotas and the clock that it goes by."""

    def __init__(self, quota: int | None = 1000, quotas: FakeQuotas | None = None) -> None:
        self.now = EVENING
        self.quotas = quotas or FakeQuotas()
        self.allowance = Allowance(
            destination=FakeDestination(quota=quota),
            lane=Lane.INITIAL,
            quotas=self.quotas,
            lease=FakeLease(),
            clock=lambda: self.now,
        )

    def midnight(self) -> None:
        self.now = EVENING + timedelta(minutes=1)

    def used(self, day: date = TODAY) -> int:
        return self.quotas.used("fake", day).get(Lane.INITIAL, 0)


def test_one_per_cent_is_reserved_at_once_and_the_rest_given_back() -> None:
    day = Day()
    taken = day.allowance.take(3)
    assert (taken.amount, day.used()) == (3, 10)
    day.allowance.use(taken, 3)
    day.allowance.close()
    assert day.used() == 3
    day.allowance.close()
    assert day.used() == 3, "given back once"


def test_as_much_as_there_is() -> None:
    day = Day()
    assert [day.allowance.take(500).amount for _ in range(3)] == [500, 300, 0]
    assert day.allowance.left() == 0


def test_what_is_left_counts_what_is_reserved_already() -> None:
    day = Day()
    day.allowance.take(3)
    assert day.used() == 10
    assert day.allowance.left() == 797


def test_what_was_taken_yesterday_is_taken_again_today() -> None:
    day = Day()
    taken = day.allowance.take(5)
    day.midnight()
    day.allowance.use(taken, 5)
    day.allowance.close()
    assert (day.used(TODAY), day.used(TOMORROW)) == (10, 5)


def test_what_was_taken_yesterday_is_no_gift_to_today() -> None:
    day = Day()
    taken = day.allowance.take(5)
    day.midnight()
    assert day.allowance.take(1).amount == 1
    day.allowance.put_back(taken)
    day.allowance.close()
    assert day.used(TOMORROW) == 1


def test_nothing_goes_when_today_is_used_up_by_then() -> None:
    day = Day()
    taken = day.allowance.take(5)
    day.midnight()
    day.quotas.days[TOMORROW] = {Lane.INITIAL: 800}
    with pytest.raises(QuotaUsed) as caught:
        day.allowance.use(taken, 5)
    assert caught.value.until == datetime(2026, 10, 9, tzinfo=UTC)
    assert day.used(TOMORROW) == 800


def test_a_repeated_request_takes_more_or_does_not_go() -> None:
    day = Day(quota=10)
    taken = day.allowance.take(5)
    day.allowance.use(taken, 5)
    day.allowance.use(taken, 3)
    with pytest.raises(QuotaUsed):
        day.allowance.use(taken, 1)
    assert day.used() == 8


def test_without_a_quota_there_is_always_enough() -> None:
    day = Day(quota=None)
    taken = day.allowance.take(10**9)
    for _ in range(3):
        day.allowance.use(taken, 10**9)
    day.allowance.close()
    assert (day.allowance.left(), day.quotas.writes) == (None, 0)


@pytest.mark.parametrize("error", [LeaseLost("taken over"), StoreFailed("the store failed")])
def test_what_cannot_be_given_back_stays_used(error: Exception) -> None:
    class Broken(FakeQuotas):
        def give_back(self, *_arguments: object, **_named: object) -> None:
            raise error

    day = Day(quotas=Broken())
    day.allowance.take(3)
    day.allowance.close()
    assert day.used() == 10


def test_threads_take_it_together_once() -> None:
    day = Day(quota=5000)

    def work(number: int) -> int:
        got = 0
        while (taken := day.allowance.take(7)).amount:
            used = min(taken.amount, 1 + number % 7)
            day.allowance.use(taken, used)
            day.allowance.put_back(taken)
            got += used
        return got

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 4000
    assert day.used() == 4000


def test_no_lease_of_another_is_used() -> None:
    """The lane's own lease goes with every write."""
    seen: list[Lease] = []

    class Watched(FakeQuotas):
        def reserve(self, *arguments: object, lease: Lease, **named: object) -> int:
            seen.append(lease)
            return super().reserve(*arguments, lease=lease, **named)  # type: ignore[arg-type]

    Day(quotas=Watched()).allowance.take(1)
    assert [lease.name for lease in seen] == ["deliver:fake:initial"]
