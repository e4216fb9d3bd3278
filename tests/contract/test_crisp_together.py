"""``bulk``: who shares requests and who does not, workers, lanes and nodes (P3, P5, P6, P13).

Each was found by somebody who tried to break it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from audience_sync.destinations import crisp_bulk
from audience_sync.destinations.crisp import CrispDestination
from audience_sync.destinations.crisp_api import Answered, CrispApi
from audience_sync.domain.audience import AudienceKey
from audience_sync.errors import BadCalls, QuotaUsed, RetryLater
from audience_sync.pipeline import send
from audience_sync.pipeline.ports.sending import MaySend, MemberCalls, Sent, at_once
from audience_sync.store import migrate
from audience_sync.store.contacts import Contacts
from audience_sync.store.engine import Database
from audience_sync.store.ids import destination_id, known_audience_id
from audience_sync.store.pair import Pair
from audience_sync.store.resyncs import request_resync
from tests.contract.test_crisp_bulk import (
    BATCH,
    CITY,
    DATA,
    PAGE,
    asked_by,
    existing,
    known,
    living,
    traits,
    users,
)
from tests.fakes.crisp import NOW, crisp_sandbox, destination, told
from tests.fakes.crisp_station import CrispStation
from tests.fakes.snapshot_log import people

HOUR = timedelta(hours=1)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'state.db'}")
    migrate.upgrade(made)
    yield made
    made.close()


@pytest.fixture
def station(database: Database) -> Iterator[CrispStation]:
    with crisp_sandbox() as running:
        yield CrispStation(database=database, crisp=running)


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send.Sending, "_sleep", lambda *_: None)


def node(station: CrispStation, clock: Callable[[], datetime] | None = None) -> CrispDestination:
    """A destination as another process has it."""
    contacts = Contacts(station.database, "crisp")
    return destination(station.crisp, contacts, clock=clock or station.clock, bulk=True)


def calls_of(
    to: CrispDestination, rows: Mapping[str, Mapping[str, Any]], key: str, at: datetime
) -> list[MemberCalls]:
    """As a walk makes them."""
    all_told = [[told(user, {**row}, key=key, at=at)] for user, row in rows.items()]
    to.look_ahead(all_told)
    made = [to.calls(one) for one in all_told]
    return [calls for calls in made if isinstance(calls, MemberCalls)]


def sent(to: CrispDestination, calls: list[MemberCalls], may_send: MaySend = at_once) -> Sent:
    sender = to.sender()
    try:
        return sender.send(calls, may_send)
    finally:
        sender.close()


@pytest.mark.usefixtures("no_waits")
class TestWhoOnlySeemsToShare:
    def test_two_users_of_each_profile_come_to_an_end(self, station: CrispStation) -> None:
        """They are told one by one, in sends that a day's quota suffices for."""
        rows = {u: {"email": f"p{n // 2:03}@example.com"} for n, u in enumerate(users(120))}
        station.log("known").put(rows)
        station.run()
        station.other = {"quota": 100, "reserve": 0.2}
        station.log("vip").put(rows)
        moved: list[int] = []
        station.progress = lambda span: moved.append(span.books.accepted)
        days = 0
        while station.run():
            station.clock.now += timedelta(days=1)
            days += 1
            assert days < 4, "it comes to no end"
        steps = [after - before for before, after in pairwise(moved)]
        assert max(steps) <= 4 * crisp_bulk.REPEATED
        assert set(traits(station.crisp, "vip").values()) == {True}

    @pytest.mark.parametrize(("quota", "reserve"), [(50, 0.9), (100, 0.9), (16, 0.5), (12, 0.25)])
    def test_tiny_quotas_suffice(self, station: CrispStation, quota: int, reserve: float) -> None:
        known(station, users(40, first=1))
        station.other = {"quota": quota, "reserve": reserve}
        station.clock.now += timedelta(days=1)
        station.log("vip").put(people(*users(41)))
        station.log("winback").put(people(*users(30)))
        days = 0
        while station.run():
            station.clock.now += timedelta(days=1)
            days += 1
            assert days < 40, "it comes to no end"
        assert set(traits(station.crisp, "vip").values()) == {True}


@pytest.mark.usefixtures("no_waits")
class TestWhatWasToldAhead:
    def test_another_node_tells_nothing_older(self, station: CrispStation) -> None:
        """P6: long before the position passes those who were told together."""
        known(station, users(60))
        one, two = node(station), node(station)
        first = calls_of(one, living("Lyon", users(60)), "new", NOW + HOUR)
        sent(one, first[:30])
        sent(two, calls_of(two, living("Nantes", users(60)), "old", NOW))
        sent(one, first[30:])
        assert set(traits(station.crisp, "city").values()) == {"Lyon"}
        assert set(traits(station.crisp, "old").values()) == {True}

    def test_a_column_nobody_looked_at_is_told_again(
        self, station: CrispStation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Crisp does the first request for half of them, and the run ends before that is seen."""
        known(station, users(10))
        ask, halves = CrispApi.ask, iter([True])

        def half(api: CrispApi, method: Any, path: str, body: Any = None, **named: Any) -> Answered:
            if path.endswith("batch/data") and next(halves, False):
                body = {**body, "people": {"profiles": body["people"]["profiles"][::2]}}
            return ask(api, method, path, body, **named)

        monkeypatch.setattr(CrispApi, "ask", half)
        requests = iter([True])

        def one_request(_amount: int) -> None:
            if not next(requests, False):
                raise QuotaUsed("used", until=NOW)

        to = node(station)
        with pytest.raises(QuotaUsed):
            sent(to, calls_of(to, living("Nantes", users(10)), "vip", NOW), one_request)
        assert set(traits(station.crisp, "city").values()) == {"Nantes", None}
        sent(to, calls_of(to, living("Nantes", users(10)), "vip", NOW))
        assert set(traits(station.crisp, "city").values()) == {"Nantes"}

    def test_a_resync_tells_columns_too(self, station: CrispStation) -> None:
        """P13: somebody has changed them at Crisp."""
        log = station.log("vip", CITY)
        log.put(living("Nantes", users(20)))
        station.run()
        for person in station.crisp.people().values():
            body = {"data": {"city": "wrong", "vip": False}}
            station.crisp.ask("PATCH", f"people/data/{person['people_id']}", body)
        with station.database.write() as connection:
            pair = Pair(
                known_audience_id(connection, AudienceKey("vip")),
                destination_id(connection, "crisp"),
            )
            request_resync(connection, pair, station.clock())
        station.clock.now += HOUR
        log.put(living("Nantes", users(20)))
        asked = asked_by(station)
        assert set(traits(station.crisp, "city").values()) == {"Nantes"}
        assert set(traits(station.crisp, "vip").values()) == {True}
        assert asked[DATA] == 0
        assert asked[BATCH] == 1

    def test_what_was_looked_ahead_another_day_is_not_told(self, station: CrispStation) -> None:
        """While it is doubted nobody looks ahead for many; then it is trusted again."""
        known(station, users(10))
        now = [NOW]
        to = node(station, lambda: now[0])
        calls_of(to, people(*users(10)), "vip", NOW)
        to._bulk.doubt("why")
        now[0] += crisp_bulk.DOUBTED_FOR - timedelta(seconds=1)
        gone = [
            [told(u, None, {"email": f"{u}@example.com"}, key="vip", at=now[0])] for u in users(10)
        ]
        to.look_ahead(gone)
        now[0] += timedelta(seconds=2)
        made = [to.calls(one) for one in gone]
        sent(to, [calls for calls in made if isinstance(calls, MemberCalls)])
        assert set(traits(station.crisp, "vip").values()) == {False}


class TestLooking:
    @pytest.mark.usefixtures("no_waits")
    @pytest.mark.parametrize("count", [40, 300])
    def test_a_read_that_is_refused_rejects_nobody(
        self, station: CrispStation, monkeypatch: pytest.MonkeyPatch, count: int
    ) -> None:
        """It is a doubt: all are told one by one."""
        known(station, users(count))
        bad = station.crisp.people()[f"{users(count)[-1]}@example.com"]["people_id"]
        ask = CrispApi.ask

        def refused(api: CrispApi, method: Any, path: str, *more: Any, **named: Any) -> Answered:
            if method == "GET" and bad in path:
                raise BadCalls("request refused (400, invalid_people)")
            return ask(api, method, path, *more, **named)

        monkeypatch.setattr(CrispApi, "ask", refused)
        station.log().put(people(*users(count)))
        (done,) = station.run()
        assert (done.outcome, done.accepted, done.rejected) == ("completed", count, 0)

    def test_a_newer_value_of_the_other_lane_is_no_doubt(self, station: CrispStation) -> None:
        known(station, users(10))
        to = node(station)
        old = calls_of(to, living("Nantes", users(10)), "old", NOW)
        requests = []

        def may_send(_amount: int) -> None:
            requests.append(1)
            if len(requests) == 2:  # just before the first look
                for user in users(10):
                    newer = told(user, living("Lyon", [user])[user], key="new", at=NOW + HOUR)
                    made = to._calls(user, to._document([newer]), 0)
                    assert isinstance(made, MemberCalls)
                    sent(to, [made])

        sent(to, old, may_send)
        assert to._bulk.is_on
        assert set(traits(station.crisp, "city").values()) == {"Lyon"}
        assert set(traits(station.crisp, "old").values()) == {True}

    @pytest.mark.parametrize("concurrency", [1, 4])
    def test_the_second_look_is_not_taken_at_once_by_another_worker(
        self, database: Database, concurrency: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """New people make several sends of those who are looked at together."""
        monkeypatch.setattr("audience_sync.destinations.crisp_looking.SECOND_LOOK", 4.0)
        with crisp_sandbox(stale=3.8) as running:
            station = CrispStation(
                database=database, crisp=running, other={"concurrency": concurrency}
            )
            known(station, users(60, first=60))
            for person in running.people().values():
                running.ask("GET", f"people/data/{person['people_id']}")
            station.log().put(people(*users(120)))
            began = time.monotonic()
            asked = asked_by(station)
            assert time.monotonic() - began > 4
        assert asked[BATCH] == 1
        assert asked[DATA] == 60, "only who is new is told alone"


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize("bulk", [False, True])
def test_each_unknown_one_counts_once_for_the_listing(
    database: Database, bulk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most a page for each, also where a request fails and all is gone through again."""
    ask, failures = CrispApi.ask, iter([True, True])

    def failing(api: CrispApi, method: Any, path: str, *more: Any, **named: Any) -> Answered:
        if path.endswith("batch/data") and next(failures, False):
            raise RetryLater("lost")
        return ask(api, method, path, *more, **named)

    monkeypatch.setattr(CrispApi, "ask", failing)
    # Whoever is not ours is listed first.
    with crisp_sandbox(existing([*users(40), *users(3_000, first=50_000)])) as running:
        station = CrispStation(
            database=database, crisp=running, other={"concurrency": 1, "bulk": bulk}
        )
        station.log("known").put(people(*users(60, first=1_000)))
        station.run()
        pages = station.requests()[PAGE]
        station.log("vip").put(people(*users(40), *users(60, first=1_000)))
        asked = asked_by(station)
    assert pages + asked[PAGE] <= 62
