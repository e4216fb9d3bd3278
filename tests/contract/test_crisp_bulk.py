"""``bulk``: many members in one request, over real sockets and a real store (P2, P3, P6).

Whatever Crisp makes of it, everybody's traits are true in the end.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from audience_sync.destinations import crisp_bulk, crisp_looking, crisp_sharing
from audience_sync.destinations.crisp_api import Answered, CrispApi
from audience_sync.domain.audience import ColumnType, Kind, Row
from audience_sync.domain.contact import Contact
from audience_sync.domain.quota import Lane
from audience_sync.errors import BadCalls, RetryLater, StoreFailed
from audience_sync.pipeline import batches, send, turn
from audience_sync.pipeline.allowance import Taken
from audience_sync.sandbox.existing import Existing
from audience_sync.sandbox.options import failure
from audience_sync.store.engine import Database
from audience_sync.store.quotas import Quotas
from tests.fakes.crisp import NOW, Crisp, crisp_sandbox
from tests.fakes.crisp_station import CrispStation
from tests.fakes.snapshot_log import EMAIL, execute, people, scalar

BATCH = "PATCH batch/data 200"
DATA = "PATCH people/data/{who} 200"
PROFILE = "PATCH people/profile/{who} 200"
READ = "GET people/data/{who} 200"
PAGE = "GET people/profiles/{page} 200"
CREATED = "POST people/profile 201"
CITY = EMAIL | {"city": ColumnType.STRING}


def users(count: int, first: int = 0) -> list[str]:
    return [f"u{number:05}" for number in range(first, first + count)]


def existing(user_ids: Sequence[str]) -> list[Existing]:
    return [
        Existing(email=f"{u}@example.com", card={"person": {"nickname": u}}, data={"old": 1})
        for u in user_ids
    ]


def living(city: str, user_ids: Sequence[str]) -> dict[str, Row]:
    return {u: {"email": f"{u}@example.com", "city": city} for u in user_ids}


@pytest.fixture(autouse=True)
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were waited; none of them pass."""
    found: list[float] = []

    def sleep(sending: send.Sending, seconds: float, _taken: Taken) -> None:
        found.append(max(seconds, 0.0))
        if sending.stop.is_set():
            raise send.Stopped("stopping")

    monkeypatch.setattr(send.Sending, "_sleep", sleep)
    return found


@pytest.fixture
def station(database: Database) -> Iterator[CrispStation]:
    with crisp_sandbox() as running:
        yield CrispStation(database=database, crisp=running)


def known(station: CrispStation, user_ids: Sequence[str]) -> None:
    """They have profiles, and contacts that know them."""
    station.log("known").put(people(*user_ids))
    station.run()
    assert len(station.crisp.people()) == len(user_ids)


def asked_by(station: CrispStation, runs: int = 1) -> Counter[str]:
    """What the next deliveries ask."""
    before = station.requests()
    for _ in range(runs):
        delivered = station.run()
        assert {d.outcome for d in delivered} == {"completed"}
    return station.requests() - before


def traits(crisp: Crisp, key: str) -> dict[str, Any]:
    return {p["email"].partition("@")[0]: p["data"].get(key) for p in crisp.people().values()}


class TestFirstDelivery:
    def test_of_people_whom_crisp_has(self, database: Database) -> None:
        count = 2_000
        with crisp_sandbox(existing(users(count))) as running:
            station = CrispStation(database=database, crisp=running)
            station.log().put(people(*users(count)))
            (delivered,) = station.run()
            assert (delivered.outcome, delivered.accepted) == ("completed", count)
            asked = station.requests()
            assert traits(running, "vip") == dict.fromkeys(users(count), True)
        assert asked[PAGE] == count // 50 + 1
        assert asked.total() <= most_requests(count)
        assert most_requests(100_000) <= 2_300
        assert scalar(database, "SELECT count(*) FROM contact") == count

    @pytest.mark.parametrize("at", [1, 2, 4])
    def test_that_was_killed(
        self, database: Database, monkeypatch: pytest.MonkeyPatch, at: int
    ) -> None:
        """No page is listed twice, and no more batches are sent again than were in flight."""
        monkeypatch.setattr(batches, "AHEAD", 400)
        monkeypatch.setattr(crisp_sharing, "PEOPLE", 100)
        count, commits = 1_600, [0]
        with crisp_sandbox(existing(users(count))) as running:
            station = CrispStation(database=database, crisp=running)
            station.log().put(people(*users(count)))
            station.progress = killed_after(at, commits)
            assert [d.outcome for d in station.run()] == ["failed"]
            station.progress = lambda _span: None
            station.run()
            asked = station.requests()
            assert traits(running, "vip") == dict.fromkeys(users(count), True)
        assert asked[PAGE] == count // 50 + 1
        assert asked.total() <= most_requests(count, people=100) + IN_FLIGHT
        assert most_requests(100_000) + IN_FLIGHT <= 2_300

    def test_of_people_of_whom_half_are_new(self, station: CrispStation) -> None:
        for user_id in users(60)[::2]:
            station.crisp.add(f"{user_id}@example.com")
        station.log().put(people(*users(60)))
        (delivered,) = station.run()
        assert delivered.accepted == 60
        assert traits(station.crisp, "vip") == dict.fromkeys(users(60), True)
        asked = station.requests()
        assert asked[CREATED] == 30 + 30
        assert asked[BATCH] + asked[READ] < 20
        assert asked[PAGE] == 2


class TestNewOnes:
    def test_among_others_end_no_request_for_many(self, station: CrispStation) -> None:
        """Two requests each, and whom Crisp has is told as if there were no new ones."""
        known(station, [u for n, u in enumerate(users(600)) if n % 5])
        station.log("vip").put(people(*users(600)))
        station.log("winback").put(people(*users(600)[::2]))
        asked = asked_by(station)
        assert asked[CREATED] == asked[DATA] == 120
        assert asked[BATCH] <= 2
        assert asked[READ] <= asked[BATCH] + crisp_bulk.LOOKED_AT * crisp_bulk.CLOSELY
        assert asked.total() == 240 + asked[BATCH] + asked[READ] + asked[PAGE]
        assert traits(station.crisp, "vip") == dict.fromkeys(users(600), True)
        winback = {user: n % 2 == 0 or None for n, user in enumerate(users(600))}
        assert traits(station.crisp, "winback") == winback

    def test_among_people_of_many_countries(self, station: CrispStation) -> None:
        """By key and value, over all of them: one more audience or country is one more request."""
        everybody = users(900)
        known(station, [u for n, u in enumerate(everybody) if n % 5])
        rows = {
            u: {"email": f"{u}@example.com", "city": f"c{n % 20}"} for n, u in enumerate(everybody)
        }
        station.log("vip", CITY).put(rows)
        station.log("winback").put(people(*everybody[::2]))
        station.log("lapsed").put(people(*everybody[::3]))
        asked = asked_by(station)
        assert asked[CREATED] == asked[DATA] == 180
        assert asked[BATCH] <= 20 + 2 * 3
        assert asked[READ] <= asked[BATCH] + crisp_bulk.LOOKED_AT * crisp_bulk.CLOSELY
        assert traits(station.crisp, "city") == {u: row["city"] for u, row in rows.items()}
        assert traits(station.crisp, "lapsed") == {
            u: n % 3 == 0 or None for n, u in enumerate(everybody)
        }

    def test_are_told_to_the_end_when_somebody_else_comes(
        self, station: CrispStation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A send that makes room is finished first: else all of it would be asked again."""
        monkeypatch.undo()  # nothing is waited for here, and it is to be seen what is withdrawn
        monkeypatch.setattr(turn, "LOOK_EVERY", 0.0)
        station.log("vip").put(people(*users(300)))
        winback = station.log("winback")
        asked_for, ask = itertools.count(1), CrispApi.ask

        def slowly(*what: Any, **how: Any) -> Any:
            if next(asked_for) == 30:  # in the middle of the first sends
                winback.put(people(*users(3, 900)))
            time.sleep(0.01)
            return ask(*what, **how)

        monkeypatch.setattr(CrispApi, "ask", slowly)
        done = station.run()
        assert {(d.span.audience, d.outcome, d.accepted) for d in done} == {
            ("winback", "completed", 3),
            ("vip", "completed", 300),
        }
        asked = station.requests()
        assert asked[CREATED] == asked[DATA] == 303
        assert asked.total() == 606 + asked[PAGE]

    def test_with_values_of_their_own_end_it(self, station: CrispStation) -> None:
        """They would be told alone once more, so a kill must not repeat many."""
        score = station.log("score", EMAIL | {"value": ColumnType.INT64}, Kind.COMPUTED_TRAIT)
        score.put({u: {"email": f"{u}@example.com", "value": n} for n, u in enumerate(users(100))})
        moved: list[int] = []
        station.progress = lambda span: moved.append(span.books.accepted)
        station.run()
        assert max(after - before for before, after in pairwise([0, *moved])) <= (
            crisp_bulk.REPEATED
        )


IN_FLIGHT = 4 * (4 + 1) + crisp_bulk.LOOKED_AT * crisp_bulk.CLOSELY
"""Requests that a kill repeats, with the ``concurrency`` of 4 that is the default."""


def most_requests(count: int, people: int = crisp_sharing.PEOPLE) -> int:
    """Pages; what is sent before they are there; batches; and one person of each send."""
    pages, first = math.ceil(count / 50) + 1, 2 * (4 + 1)
    closely = crisp_bulk.LOOKED_AT * crisp_bulk.CLOSELY
    return pages + first + closely + math.ceil(count / people) + math.ceil(count / people / 4) + 2


def killed_after(commits: int, seen: list[int]) -> Any:
    def progress(_span: Any) -> None:
        seen[0] += 1
        if seen[0] > commits:
            raise StoreFailed("killed")

    return progress


class TestWhoIsToldTogether:
    def test_who_entered_and_who_exited(self, station: CrispStation) -> None:
        known(station, users(20))
        vip = station.log()
        vip.put(people(*users(10)))
        asked = asked_by(station)
        assert asked == {BATCH: 1, READ: 3}
        vip.put(people(*users(10, first=10)))
        asked = asked_by(station)
        assert asked == {BATCH: 2, READ: 6}
        expected = {u: u in users(10, first=10) for u in users(20)}
        assert traits(station.crisp, "vip") == expected
        assert traits(station.crisp, "known") == dict.fromkeys(users(20), True)

    def test_the_same_of_several_audiences(self, station: CrispStation) -> None:
        known(station, users(12))
        station.log("vip").put(people(*users(12)))
        station.log("old").put(people(*users(12)))
        assert asked_by(station) == {BATCH: 1, READ: 3}
        assert traits(station.crisp, "old") == dict.fromkeys(users(12), True)
        assert traits(station.crisp, "vip") == dict.fromkeys(users(12), True)

    def test_what_is_saved_is_counted(self, station: CrispStation) -> None:
        known(station, users(30))
        station.log("vip").put(people(*users(30)))
        station.log("old").put(people(*users(10)))
        before = station.requests()
        delivered = station.run()
        asked = station.requests() - before
        assert asked == {BATCH: 2, READ: 6}
        assert sum(d.saved for d in delivered) == 40 - asked.total()

    def test_too_few_are_told_alone(self, station: CrispStation) -> None:
        known(station, users(20))
        station.log().put(people(*users(4)))
        assert asked_by(station) == {DATA: 4}

    def test_a_computed_trait_by_its_value(self, station: CrispStation) -> None:
        known(station, users(20))
        columns = {"value": ColumnType.FLOAT64}
        log = station.log("level", columns=columns, kind=Kind.COMPUTED_TRAIT)
        values = {u: 1.0 if n < 8 else float(n) for n, u in enumerate(users(20))}
        log.put({u: {"value": value} for u, value in values.items()})
        assert asked_by(station) == {BATCH: 1, READ: 3, DATA: 12}
        assert traits(station.crisp, "level") == values
        assert traits(station.crisp, "user_id")["u00009"] == "u00009"

    def test_who_is_new_is_created(self, station: CrispStation) -> None:
        known(station, users(10))
        station.log().put(people(*users(12)))
        assert asked_by(station) == {BATCH: 1, READ: 3, CREATED: 2, DATA: 2}
        assert traits(station.crisp, "vip") == dict.fromkeys(users(12), True)

    def test_two_users_of_one_profile_are_told_in_order(self, station: CrispStation) -> None:
        known(station, users(10))
        shared = {u: {"email": "u00003@example.com"} for u in ("z1", "z2")}
        station.log("known").put(people(*users(10)) | shared)
        station.run()
        station.log().put(people(*users(10)) | shared)
        asked = asked_by(station)
        assert asked == {BATCH: 1, READ: 3, DATA: 3}
        assert station.crisp.data("u00003@example.com")["user_id"] == "z2"

    def test_an_exit_needs_no_email(self, station: CrispStation) -> None:
        known(station, users(10))
        log = station.log("bare", columns={})
        log.put({u: {} for u in users(10)})
        assert asked_by(station) == {BATCH: 1, READ: 3}
        log.put({})
        assert asked_by(station) == {BATCH: 1, READ: 3}
        assert traits(station.crisp, "bare") == dict.fromkeys(users(10), False)


class TestSeveralRequests:
    def test_what_was_set_is_not_set_again_after_a_failure(
        self, station: CrispStation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nor is anything else left out: each member needs two of the requests."""
        known(station, users(60))
        ask, failures = CrispApi.ask, iter([False, True, False, True, True])

        def refused(api: CrispApi, method: Any, path: str, *more: Any, **named: Any) -> Answered:
            if path.endswith("batch/data") and next(failures, False):
                raise RetryLater("too many requests", after=1.0, slow_down=True)
            return ask(api, method, path, *more, **named)

        monkeypatch.setattr(CrispApi, "ask", refused)
        cities = {u: f"c{n % 4}" for n, u in enumerate(users(60))}
        station.log("vip", CITY).put(
            {u: {"email": f"{u}@example.com", "city": city} for u, city in cities.items()}
        )
        station.log("old").put(people(*users(30)))
        asked = asked_by(station)
        assert asked[BATCH] == 1 + 1 + 4
        assert asked[DATA] == 0
        assert traits(station.crisp, "city") == cities
        assert traits(station.crisp, "vip") == dict.fromkeys(users(60), True)
        assert traits(station.crisp, "old") == {u: u < "u00030" or None for u in users(60)}

    def test_who_is_told_by_half_of_them_is_told_all_the_same(
        self, station: CrispStation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Crisp stops taking requests for many when some have been sent."""
        known(station, users(60))
        ask, tries = CrispApi.ask, itertools.count(1)

        def refused(api: CrispApi, method: Any, path: str, *more: Any, **named: Any) -> Answered:
            if path.endswith("batch/data") and next(tries) > 3:
                raise BadCalls("not taken")
            return ask(api, method, path, *more, **named)

        monkeypatch.setattr(CrispApi, "ask", refused)
        cities = {u: f"c{n % 4}" for n, u in enumerate(users(60))}
        station.log("vip", CITY).put(
            {u: {"email": f"{u}@example.com", "city": city} for u, city in cities.items()}
        )
        asked = asked_by(station)
        assert asked[DATA] == 60
        assert traits(station.crisp, "city") == cities
        assert traits(station.crisp, "vip") == dict.fromkeys(users(60), True)


class TestColumns:
    def test_equal_ones_go_along(self, station: CrispStation) -> None:
        known(station, users(20))
        log = station.log(columns=CITY)
        log.put(living("Nantes", users(10)) | living("Lyon", users(10, first=10)))
        assert asked_by(station) == {BATCH: 2, READ: 6}
        cities = traits(station.crisp, "city")
        assert cities == {u: "Nantes" if u in users(10) else "Lyon" for u in users(20)}
        log.put(living("Nantes", users(10)))
        assert asked_by(station) == {BATCH: 1, READ: 3}, "what is known already is not told"
        assert traits(station.crisp, "city") == cities

    def test_a_profile_that_changed_is_told_alone(self, station: CrispStation) -> None:
        known(station, users(12))
        rows = people(*users(12))
        rows["u00002"] = {"email": "new@example.com"}
        station.log().put(rows)
        assert asked_by(station) == {BATCH: 1, READ: 3, DATA: 1, PROFILE: 1}
        assert station.crisp.data("new@example.com")["vip"] is True

    def test_also_where_many_changed_alike(self, station: CrispStation) -> None:
        known(station, users(12))
        rows = {u: {**row, "name": "Ann"} for u, row in people(*users(12)).items()}
        station.log(columns=EMAIL | {"name": ColumnType.STRING}).put(rows)
        assert asked_by(station) == {DATA: 12, PROFILE: 12}
        names = {person["person"]["nickname"] for person in station.crisp.people().values()}
        assert names == {"Ann"}

    def test_older_ones_stay_away(self, station: CrispStation) -> None:
        """A column that another audience told later is not told again as it was before (P6)."""
        known(station, users(10))
        old = station.log("old", columns=CITY)
        new = station.log("new", columns=CITY)
        old.put(living("Nantes", users(10)))
        new.put(living("Lyon", users(10)))
        asked_by(station)
        assert set(traits(station.crisp, "city").values()) == {"Lyon"}
        old.put({})
        assert asked_by(station) == {BATCH: 1, READ: 3}
        assert set(traits(station.crisp, "city").values()) == {"Lyon"}

    def test_user_id_is_left_out(self, station: CrispStation) -> None:
        for user_id in users(10):
            station.crisp.add(f"{user_id}@example.com")
        station.log().put(people(*users(10)))
        assert asked_by(station)[BATCH] == 1
        assert set(traits(station.crisp, "user_id").values()) == {None}


class TestDoubts:
    """At the first, everybody is told one by one, until another day."""

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"failures": (failure("partial:1"),)}, "do not show it"),
            ({"batch_people": 7}, r"request refused (400, invalid_data)"),
        ],
    )
    def test_who_was_not_told_is_told_alone(
        self, database: Database, options: Any, text: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with crisp_sandbox(existing(users(30)), **options) as running:
            station = CrispStation(database=database, crisp=running)
            station.log().put(people(*users(30)))
            (delivered,) = station.run()
            assert (delivered.outcome, delivered.accepted) == ("completed", 30)
            assert traits(running, "vip") == dict.fromkeys(users(30), True)
            asked = station.requests()
        assert asked[DATA] >= 20
        printed = "".join(capsys.readouterr())
        assert printed.count("told one by one for a day") == 1
        assert text in printed
        assert "@" not in printed
        assert "u000" not in printed

    def test_a_stale_answer_is_looked_at_again(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An answer to a read may be one of some time ago."""
        with crisp_sandbox(existing(users(10)), stale=3600.0) as running:
            station = CrispStation(database=database, crisp=running)
            for person in running.people().values():
                running.ask("GET", f"people/data/{person['people_id']}")
            station.log().put(people(*users(10)))
            sleep = send.Sending._sleep

            def fresh(sending: send.Sending, seconds: float, taken: Taken) -> None:
                sleep(sending, seconds, taken)
                if seconds >= crisp_looking.SECOND_LOOK:
                    running.post("fresh")

            monkeypatch.setattr(send.Sending, "_sleep", fresh)
            asked = asked_by(station)
        assert asked[BATCH] == 1
        assert asked[DATA] == 0

    def test_a_profile_that_is_gone_is_looked_up(self, station: CrispStation) -> None:
        """The last is always looked at: 404 is no doubt, but this member's matter."""
        known(station, users(10))
        person = station.crisp.people()["u00009@example.com"]["people_id"]
        execute(
            station.database,
            "UPDATE contact SET people_id = 'gone' WHERE people_id = :gone",
            gone=person,
        )
        station.log().put(people(*users(10)))
        asked = asked_by(station)
        assert asked[BATCH] == 1
        assert asked[DATA] == 1
        assert traits(station.crisp, "vip") == dict.fromkeys(users(10), True)

    def test_a_batch_that_is_never_answered(
        self, station: CrispStation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While all else is: it is too much for Crisp, or for somebody between."""
        known(station, users(10))
        ask = CrispApi.ask

        def lost(api: CrispApi, method: Any, path: str, *more: Any, **named: Any) -> Answered:
            if path.endswith("batch/data"):
                named["may_send"](1)
                raise RetryLater("crisp: no answer")
            return ask(api, method, path, *more, **named)

        monkeypatch.setattr(CrispApi, "ask", lost)
        station.log().put(people(*users(10)))
        assert asked_by(station) == {READ: 1, DATA: 10}
        assert traits(station.crisp, "vip") == dict.fromkeys(users(10), True)

    def test_it_is_tried_again_another_day(self) -> None:
        now = [NOW]
        bulk = crisp_bulk.Bulk(name="crisp", wanted=True, clock=lambda: now[0])
        assert bulk.is_on
        bulk.doubt("why")
        assert not bulk.is_on
        now[0] += crisp_bulk.DOUBTED_FOR
        assert bulk.is_on


def test_the_same_is_the_same_to_json() -> None:
    parts_of, shows = crisp_sharing.parts_of, crisp_looking.shows
    assert parts_of({"a": 1, "b": "x"}) == parts_of({"b": "x", "a": 1})
    assert len({parts_of({"a": value}) for value in (True, 1, "1", "true", 1.5)}) == 5
    assert shows({"data": {"a": 1, "other": 2}}, {"a": 1.0})
    assert shows({"data": {}}, {"a": ""})
    for data in ({}, {"a": True}, {"a": "1"}, {"a": None}, {"b": 1}):
        assert not shows({"data": data}, {"a": 1})
    for answer in (None, [], "a", {}, {"data": None}, {"data": [1]}):
        assert not shows(answer, {"a": 1})


def batch(part: bytes, first: int, count: int = 8) -> crisp_bulk.Batch:
    members: list[Any] = [
        (None, Contact(user_id=u, people_id=f"p-{u}", email=None, as_of=NOW))
        for u in users(count, first)
    ]
    return crisp_bulk.Batch(parts=(part,), data={}, members=members)


class TestSamples:
    def test_at_first_closely_then_one_of_those_that_say_the_same(self) -> None:
        bulk = crisp_bulk.Bulk(name="crisp", wanted=True, clock=lambda: NOW)
        (first,) = bulk.samples([batch(b"a", 0)])
        assert (first.count, first.people_ids[0]) == (3, "p-u00007"), "the last one is among them"
        send = [batch(b"a", 0), batch(b"a", 8), batch(b"b", 16), batch(b"a", 24)]
        assert [(*s.batch.parts, s.count) for s in bulk.samples(send)] == [(b"a", 3), (b"b", 1)]
        for _ in range(9):
            later = {s.batch.parts[0]: s.count for s in bulk.samples(send)}
            assert later == {b"a": 1, b"b": 1}
        assert bulk.samples([]) == []

    def test_each_of_the_first_closely(self) -> None:
        bulk = crisp_bulk.Bulk(name="crisp", wanted=True, clock=lambda: NOW)
        found = bulk.samples([batch(b"a", 0), batch(b"a", 8), batch(b"a", 16)])
        assert [(s.people_ids[0], s.count) for s in found] == [("p-u00007", 3), ("p-u00015", 3)]

    def test_any_batch_and_anybody_may_be_looked_at(self) -> None:
        bulk = crisp_bulk.Bulk(name="crisp", wanted=True, clock=lambda: NOW)
        send = [batch(b"a", 8 * n) for n in range(4)]
        seen = {s.people_ids[0] for _ in range(2_000) for s in bulk.samples(send)}
        assert seen == {f"p-{u}" for u in users(32)}

    def test_who_was_read_lately_comes_last(self) -> None:
        bulk = crisp_bulk.Bulk(name="crisp", wanted=True, clock=lambda: NOW)
        bulk.was_read("p-u00007")
        (sample,) = bulk.samples([batch(b"a", 0)])
        assert sample.people_ids[-1] == "p-u00007"


class TestQuota:
    def test_it_is_never_passed_and_the_next_day_goes_on(self, database: Database) -> None:
        count = 60
        with crisp_sandbox(existing(users(count)[::2]), quota=40) as running:
            station = CrispStation(database=database, crisp=running)
            station.other = {"quota": 40, "reserve": 0.25}
            station.log().put(people(*users(count)))
            days = 0
            while delivered := station.run():
                today = station.clock.now.date()
                used = Quotas(database).used("crisp", today)
                asked = running.get("counts.json")["quota"]["plugin"]["used"]
                assert asked <= used[Lane.INITIAL] <= 30
                assert {d.outcome for d in delivered} <= {"quota used", "completed"}
                station.clock.now += timedelta(days=1)
                running.post("day")
                days += 1
                assert days < 10
            assert traits(running, "vip") == dict.fromkeys(users(count), True)

    @pytest.mark.parametrize("concurrency", [1, 4])
    def test_what_sends_beside_each_other_do_not_need_is_used(
        self, database: Database, concurrency: int
    ) -> None:
        """Each takes the most that it can cost, three requests for a new one, and needs two."""
        with crisp_sandbox(quota=10_000) as running:
            other = {"quota": 200, "reserve": 0.2, "concurrency": concurrency}
            station = CrispStation(database=database, crisp=running, other=other)
            station.log().put(people(*users(100)))
            station.run()
            assert station.requests().total() > 160 - 15

    def test_a_send_that_it_ends_within_costs_little_more(self, database: Database) -> None:
        """Those who were made before are told together the next day."""
        count, a_day = 90, 70
        with crisp_sandbox(quota=10_000) as running:
            station = CrispStation(database=database, crisp=running)
            station.other = {"quota": a_day, "reserve": 0.0}
            station.log().put(people(*users(count)))
            while station.run():
                station.clock.now += timedelta(days=1)
            assert traits(running, "vip") == dict.fromkeys(users(count), True)
            asked = station.requests()
        assert asked[CREATED] == count
        assert asked.total() <= 2 * count + asked[PAGE] + 20

    def test_a_small_one_suffices_for_what_many_share(self, station: CrispStation) -> None:
        """Nothing of it is begun that a day would not end: it would be begun anew every day."""
        known(station, users(120))
        station.other = {"quota": 16, "reserve": 0.25}
        station.clock.now += timedelta(days=1)
        cities = {u: f"c{n % 10}" for n, u in enumerate(users(120))}
        station.log("vip", CITY).put(
            {u: {"email": f"{u}@example.com", "city": city} for u, city in cities.items()}
        )
        days = 0
        while station.run():
            station.clock.now += timedelta(days=1)
            days += 1
            assert days < 30, "it comes to no end"
        assert traits(station.crisp, "city") == cities
        assert traits(station.crisp, "vip") == dict.fromkeys(users(120), True)
