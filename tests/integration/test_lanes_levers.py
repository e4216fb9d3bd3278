"""People give orders while deliveries go on: who stops, how soon, and who does not. (P9, P13)"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from audience_sync.domain.audience import LEAVING, OnRetire
from audience_sync.domain.span import SpanKind
from audience_sync.errors import BadCalls
from audience_sync.store.orders import Orders
from audience_sync.store.retirement import Retirement
from tests.fakes.destination import FakeDestination, accept
from tests.fakes.snapshot_log import VIP, column, people, scalar
from tests.fakes.teller import ANN
from tests.integration.test_lanes import OLD, Station, members, users


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    made = Station(path=tmp_path / "state.db", to=[FakeDestination()])
    yield made
    made.database.close()


@pytest.fixture
def to(station: Station) -> FakeDestination:
    return station.to[0]


def orders(station: Station) -> Orders:
    return Orders(station.database, station.clock)


def pause(station: Station) -> None:
    orders(station).pause(VIP, "VIP", station.vip.kind, ANN)


def resume(station: Station) -> None:
    orders(station).resume(VIP, ANN)


def stop_destination(station: Station) -> None:
    orders(station).stop("fake", ANN)


def resync(station: Station) -> None:
    """With the capture that it waits for, in another process."""
    orders(station).resync(VIP, ["fake"], ANN)
    station.vip.put(people(*users(0, 300)))


def retire(station: Station, how: OnRetire = OnRetire.TELL_FALSE) -> None:
    staged = station.vip.stage({}) if how is OnRetire.TELL_FALSE else None
    book = Retirement(database=station.database, clock=station.clock, given=ANN)
    book.retire(VIP, staged, how, station.vip.lease)


def leave(station: Station) -> None:
    retire(station, OnRetire.LEAVE)


def at_request(
    station: Station, number: int, order: Callable[[Station], None]
) -> Callable[[Sequence[str]], None]:
    """Give the order, once, while that request is under way, or one of those beside it."""
    given: list[int] = []
    one_at_a_time = threading.Lock()

    def answer(_user_ids: Sequence[str]) -> None:
        with one_at_a_time:  # no other is answered meanwhile, so that no more of them begin
            if len(station.to[0].requests) >= number and not given:
                given.append(number)
                order(station)
        time.sleep(0.01)

    return answer


@pytest.mark.parametrize("order", [pause, stop_destination, resync, retire, leave])
def test_a_walk_stops_with_the_next_commit(
    station: Station, to: FakeDestination, order: Callable[[Station], None]
) -> None:
    station.vip.put(people(*users(0, 300)))
    to.answer = at_request(station, 5, order)
    (delivered,) = station.run()
    assert (delivered.outcome, delivered.error) == ("stopped", None)
    assert 0 < delivered.accepted < 100
    assert len(to.requests) <= 5 + to.concurrency


@pytest.mark.parametrize("order", [pause, resync, retire, leave])
def test_the_others_of_the_lane_go_on(
    station: Station, to: FakeDestination, order: Callable[[Station], None]
) -> None:
    station.vip.put(people(*users(0, 300)))
    station.stop.set()
    station.run()
    station.stop.clear()
    station.old.put(people(*users(500, 900)))
    to.answer = at_request(station, 5, order)
    # What a resync tells follows in the same run.
    assert station.outcomes() == ["stopped", "completed", *(["completed"] * (order is resync))]
    assert set(users(500, 900)) <= set(to.told)


def test_nothing_is_begun_that_was_paused_meanwhile(station: Station, to: FakeDestination) -> None:
    """In the same lane and in the one that follows it."""
    station.vip.put(people(*users(0, 10)))
    station.run()
    # So many that the last of them cannot have begun when the order counts.
    station.vip.put(people(*users(0, 300)))
    station.old.put(people(*users(500, 600)))
    to.requests.clear()
    to.answer = at_request(station, 2, stop_destination)
    assert [(str(d.span.lane), d.outcome) for d in station.run()] == [("incremental", "stopped")]
    assert column(station.database, "SELECT state FROM span") == ["completed", "open"]
    assert not {user_id for user_id in to.sent if user_id >= "u00500"}


@pytest.mark.usefixtures("in_line")
@pytest.mark.parametrize(
    ("order", "undo"),
    [(pause, resume), (stop_destination, lambda station: orders(station).go_on("fake", ANN))],
)
def test_it_goes_on_where_it_stopped(
    station: Station,
    to: FakeDestination,
    order: Callable[[Station], None],
    undo: Callable[[Station], None],
) -> None:
    station.vip.put(people(*users(0, 300)))
    to.answer = at_request(station, 5, order)
    station.run()
    to.answer = accept
    before = len(to.requests)
    assert station.outcomes() == ["stopped"]
    assert len(to.requests) == before, "sent though it is paused"
    undo(station)
    assert station.outcomes() == ["completed"]
    assert sorted(to.told) == users(0, 300), "somebody was told twice, or not at all"


def test_an_order_during_the_last_request_stops_nothing(
    station: Station, to: FakeDestination
) -> None:
    station.vip.put(people(*users(0, 50)))
    to.concurrency = 1
    to.answer = at_request(station, 5, pause)
    assert station.outcomes() == ["completed"]
    assert station.spans.told_seq("fake", VIP) == 1


def test_ended_during_the_last_request_it_is_not_completed(
    station: Station, to: FakeDestination
) -> None:
    station.vip.put(people(*users(0, 50)))
    to.concurrency = 1
    to.answer = at_request(station, 5, leave)
    (delivered,) = station.run()
    assert (delivered.outcome, delivered.error) == ("stopped", None)
    assert station.spans.told_seq("fake", VIP) is None
    assert column(station.database, "SELECT state FROM span") == ["abandoned"]


def test_a_paused_destination_delays_no_other(tmp_path: Path) -> None:
    still, busy = FakeDestination(name="fake"), FakeDestination(name="busy")
    station = Station(path=tmp_path / "state.db", to=[still, busy])
    station.vip.put(people(*users(0, 50)))
    stop_destination(station)
    delivered = {d.span.destination: d.outcome for d in station.run()}
    assert delivered == {"busy": "completed"}
    assert (len(still.requests), len(busy.told)) == (0, 50)
    station.database.close()


def test_a_resync_stops_no_capture(station: Station, to: FakeDestination) -> None:
    """What is captured while everybody is told anew is told after it, by the same run."""
    station.vip.put(people(*users(0, 100)))
    station.run()
    resync(station)
    captured: list[int] = []

    def capture(station: Station) -> None:
        captured.append(station.vip.put(people(*users(50, 350))).seq)

    to.requests.clear()
    to.answer = at_request(station, 5, capture)
    delivered, following = station.run()
    assert captured == [3]
    assert (delivered.span.kind, delivered.outcome, delivered.accepted) == (
        SpanKind.RESYNC,
        "completed",
        300,
    )
    assert (following.span.kind, following.accepted) == (SpanKind.INCREMENTAL, 100)
    assert to.state() == members(station)


def test_an_abandoned_delivery_hands_over_in_one_run(station: Station, to: FakeDestination) -> None:
    """Incremental, then whole: each lane gives up its own, the next begins."""
    station.vip.put(people(*users(0, 100)))
    station.run()
    station.vip.put(people(*users(20, 300)))
    to.requests.clear()
    to.answer = at_request(station, 3, resync)
    assert station.outcomes() == ["stopped"]
    to.answer = accept
    (delivered,) = station.run()
    assert (delivered.span.kind, delivered.outcome) == (SpanKind.RESYNC, "completed")
    assert to.state() == members(station)
    assert station.run() == []
    states = column(station.database, "SELECT state FROM span ORDER BY id")
    assert states == ["completed", "abandoned", "completed"]


def test_a_retirement_in_the_middle_is_told_to_all(station: Station, to: FakeDestination) -> None:
    station.vip.put(people(*users(0, 300)))
    to.answer = at_request(station, 5, retire)
    station.run()
    to.answer = accept
    assert station.outcomes() == [], "a process that does not know of it opens nothing"
    station.tell = LEAVING
    assert station.outcomes() == ["completed"]
    assert set(to.state().values()) == {False}
    assert station.run() == []


def test_those_who_were_rejected_are_told_alone(station: Station, to: FakeDestination) -> None:
    poison = set(users(0, 200)[7::41])
    station.vip.put(people(*users(0, 200)))

    def answer(user_ids: Sequence[str]) -> None:
        if poison.intersection(user_ids):
            raise BadCalls("request refused (400)")

    to.answer = answer
    (delivered,) = station.run()
    assert (delivered.outcome, delivered.rejected) == ("completed", len(poison))
    assert station.run() == []
    orders(station).retry([VIP], ["fake"], ANN)
    to.requests.clear()
    to.answer = accept
    (delivered,) = station.run()
    assert (delivered.outcome, delivered.accepted) == ("completed", len(poison))
    assert set(to.sent) == poison
    assert to.state() == members(station)


def test_many_who_are_rejected_again_pause_nothing(station: Station, to: FakeDestination) -> None:
    """They say nothing of the set-up; else a retry would stop everybody's deliveries."""
    poison = users(0, 150)
    station.keys = (VIP, OLD)
    to.max_calls, to.refused = 1000, poison
    station.vip.put(people(*users(0, 15_000)))
    assert station.outcomes() == ["completed"]
    assert orders(station).retry([VIP], ["fake"], ANN) == 150
    (again,) = station.run()
    assert (again.outcome, again.rejected) == ("completed", 150)
    assert station.books.paused("fake") is None
    standing = "SELECT count(*) FROM rejection WHERE resolved_in IS NULL"
    assert scalar(station.database, standing) == 150
