"""Daily quotas on both databases: never more than there is, whoever asks and whoever dies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from audience_sync.domain.quota import Lane
from audience_sync.errors import LeaseLost
from audience_sync.store.destinations import Destinations
from audience_sync.store.engine import Database
from audience_sync.store.leases import HeldLease, Leases
from audience_sync.store.quotas import KEEP_DAYS, Quotas
from tests.fakes.snapshot_log import START, column, new_lease, scalar

TOP = Path(__file__).parents[2]
TODAY = START.date()
DAY = timedelta(days=1)


@pytest.fixture
def quotas(database: Database) -> Quotas:
    return Quotas(database)


@pytest.fixture
def lease(database: Database) -> HeldLease:
    return Leases(database).acquire("deliver:crisp:initial")


def reserve(
    quotas: Quotas, lease: HeldLease, amount: int, lane: Lane = Lane.INITIAL, day: object = TODAY
) -> int:
    return quotas.reserve(
        "crisp",
        lane,
        day,  # type: ignore[arg-type]
        amount,
        quota=100,
        reserve=0.2,
        lease=lease,
    )


def other_process(url: str, *orders: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.fakes.store_process", url, *orders],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


class TestOneDay:
    def test_what_is_reserved_is_used(self, quotas: Quotas, lease: HeldLease) -> None:
        assert quotas.used("crisp", TODAY) == {}
        assert [reserve(quotas, lease, 50) for _ in range(3)] == [50, 30, 0]
        assert quotas.used("crisp", TODAY) == {Lane.INITIAL: 80}
        assert reserve(quotas, lease, 15, Lane.INCREMENTAL) == 15
        assert reserve(quotas, lease, 15, Lane.INCREMENTAL) == 5
        assert quotas.of_day(TODAY) == {"crisp": {Lane.INITIAL: 80, Lane.INCREMENTAL: 20}}

    def test_incremental_deliveries_may_use_all(self, quotas: Quotas, lease: HeldLease) -> None:
        assert reserve(quotas, lease, 95, Lane.INCREMENTAL) == 95
        assert reserve(quotas, lease, 50) == 5
        assert reserve(quotas, lease, 1) == 0

    def test_what_is_given_back_may_be_used_by_both(self, quotas: Quotas, lease: HeldLease) -> None:
        reserve(quotas, lease, 80)
        reserve(quotas, lease, 20, Lane.INCREMENTAL)
        quotas.give_back("crisp", Lane.INITIAL, TODAY, 30, lease)
        assert quotas.used("crisp", TODAY) == {Lane.INITIAL: 50, Lane.INCREMENTAL: 20}
        assert reserve(quotas, lease, 10, Lane.INCREMENTAL) == 10
        assert reserve(quotas, lease, 50) == 20

    def test_a_quota_that_was_made_smaller_gives_nothing_and_takes_nothing(
        self, quotas: Quotas, lease: HeldLease
    ) -> None:
        reserve(quotas, lease, 80)
        few = {"quota": 50, "reserve": 0.2, "lease": lease}
        assert quotas.reserve("crisp", Lane.INCREMENTAL, TODAY, 9, **few) == 0  # type: ignore[arg-type]
        assert quotas.used("crisp", TODAY) == {Lane.INITIAL: 80}

    def test_each_destination_has_its_own(self, quotas: Quotas, lease: HeldLease) -> None:
        reserve(quotas, lease, 80)
        all_of_it = {"quota": 80, "reserve": 0.0, "lease": lease}
        assert quotas.reserve("segment", Lane.INITIAL, TODAY, 80, **all_of_it) == 80  # type: ignore[arg-type]
        assert quotas.used("crisp", TODAY) == quotas.used("segment", TODAY)

    def test_a_destination_that_moves_has_that_of_its_place(
        self, quotas: Quotas, lease: HeldLease, database: Database
    ) -> None:
        places = Destinations(database, lambda: START)
        places.settle("crisp", "https://one")
        reserve(quotas, lease, 80)
        places.settle("crisp", "https://other")
        assert reserve(quotas, lease, 10) == 10
        places.settle("crisp", "https://one")
        assert quotas.used("crisp", TODAY) == {Lane.INITIAL: 80}


class TestDays:
    def test_the_next_day_begins_anew(self, quotas: Quotas, lease: HeldLease) -> None:
        reserve(quotas, lease, 80)
        assert reserve(quotas, lease, 50, day=TODAY + DAY) == 50
        assert quotas.used("crisp", TODAY) == {Lane.INITIAL: 80}
        assert quotas.used("crisp", TODAY + DAY) == {Lane.INITIAL: 50}

    def test_old_days_go(self, quotas: Quotas, lease: HeldLease, database: Database) -> None:
        for number in range(KEEP_DAYS + 3):
            for lane in Lane:
                assert reserve(quotas, lease, 7, lane, TODAY + number * DAY) == 7
        assert scalar(database, "SELECT count(*) FROM quota") == 2 * (KEEP_DAYS + 1)
        assert quotas.used("crisp", TODAY + DAY) == {}
        assert quotas.used("crisp", TODAY + 2 * DAY) == dict.fromkeys(Lane, 7)

    def test_a_clock_that_was_a_year_ahead_for_a_moment_forgets_nothing_of_today(
        self, quotas: Quotas, lease: HeldLease
    ) -> None:
        reserve(quotas, lease, 80)
        reserve(quotas, lease, 10, day=TODAY + 365 * DAY)
        assert quotas.used("crisp", TODAY) == {Lane.INITIAL: 80}
        assert reserve(quotas, lease, 50) == 0


class TestLeases:
    def test_whoever_lost_the_lease_reserves_nothing_and_gives_nothing_back(
        self, quotas: Quotas, lease: HeldLease, database: Database
    ) -> None:
        reserve(quotas, lease, 10)
        new_lease(database)
        with pytest.raises(LeaseLost):
            reserve(quotas, lease, 10)
        with pytest.raises(LeaseLost):
            quotas.give_back("crisp", Lane.INITIAL, TODAY, 10, lease)
        assert column(database, "SELECT reserved FROM quota") == [10]

    @pytest.mark.parametrize("quota", [400])
    def test_two_processes_never_use_more_than_there_is(
        self, quotas: Quotas, store_url: str, quota: int
    ) -> None:
        """Each under the lease of its own lane, so that leases alone keep them from nothing."""
        done = other_process(store_url, "use-quota", "crisp", str(quota))
        assert done.returncode == 0, done.stderr
        got = {Lane(lane): int(count) for lane, count in json.loads(done.stdout).items()}
        assert sum(got.values()) == quota
        assert got[Lane.INITIAL] <= 0.8 * quota
        assert quotas.used("crisp", TODAY) == got

    def test_what_was_reserved_before_a_kill_stays_used(
        self, quotas: Quotas, store_url: str, database: Database
    ) -> None:
        done = other_process(store_url, "reserve-and-die", "crisp", "30", "100")
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert quotas.used("crisp", TODAY) == {Lane.INITIAL: 30}
        lease = Leases(database).acquire("deliver:crisp:initial")
        assert reserve(quotas, lease, 100) == 50
