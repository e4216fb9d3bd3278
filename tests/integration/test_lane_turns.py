"""Who is told first in a lane, and who need not wait for whom in one run. (P2, P3, P9)"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from audience_sync.app import App
from audience_sync.domain.audience import LEAVING, AudienceKey, OnRetire
from audience_sync.domain.guard import Limits
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Span
from audience_sync.errors import ChunkDamaged, StoreFailed
from audience_sync.pipeline import send
from audience_sync.pipeline.allowance import Taken
from audience_sync.pipeline.delivered import Delivered
from audience_sync.pipeline.deliveries import Deliveries
from audience_sync.pipeline.turn import LOOK_EVERY
from audience_sync.scheduler.lanes import CANNOT_MOVE, LaneTurns
from audience_sync.scheduler.patience import Patience
from audience_sync.standing.counters import Counters
from audience_sync.store.destinations import Destinations
from audience_sync.store.orders import Orders
from audience_sync.store.retirement import Retirement
from audience_sync.store.spans import Spans
from tests.fakes.destination import FakeDestination
from tests.fakes.snapshot_log import VIP, Log, column, people, scalar
from tests.fakes.teller import ANN
from tests.integration.test_lanes import OLD, Station, users

NEW = AudienceKey("newcomers")
LARGE = 400
AT = 10
"""The request of the large delivery during which something happens."""


class Busy(Station):
    """At each request some time passes; what happens meanwhile is up to the test."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.new = Log(self.database, NEW, 100, clock=self.clock)
        self.old.clock = self.clock
        self.keys = (VIP, OLD, NEW)
        self.now = 1000.0
        self.elapsed = lambda: self.now
        self.to[0].answer = self.answer
        self.one_at_a_time = threading.Lock()
        self.happens: dict[int, Callable[[], object]] = {}
        self.said: list[tuple[Delivered, int]] = []
        """With how many requests there were until then."""
        self.ended = lambda one: self.said.append((one, len(self.to[0].requests)))

    def answer(self, _user_ids: Sequence[str]) -> None:
        with self.one_at_a_time:
            self.happens.pop(len(self.to[0].requests), lambda: None)()
            self.now += LOOK_EVERY

    def at(self, request: int, what: Callable[[], object]) -> None:
        self.happens[request] = what

    def place_of(self, user_id: str) -> int:
        """In which request somebody was told, counted from 1."""
        found = [n for n, request in enumerate(self.to[0].requests, 1) if user_id in request]
        assert len(found) == 1, f"{user_id} was told {len(found)} times"
        return found[0]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """Of an empty store; empty itself for a file."""
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


def busy(tmp_path: Path, url: str = "", **options: Any) -> Busy:
    to = FakeDestination(**({"concurrency": 1} | options))
    return Busy(path=tmp_path / "state.db", url=url, to=[to])


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Busy]:
    made = busy(tmp_path)
    yield made
    made.database.close()


@pytest.fixture
def on_any_store(tmp_path: Path, url: str) -> Iterator[Busy]:
    made = busy(tmp_path, url)
    yield made
    made.database.close()


def outcomes(delivered: Sequence[Delivered]) -> dict[AudienceKey, tuple[str, int]]:
    found = {one.span.audience: (one.outcome, one.accepted) for one in delivered}
    assert len(found) == len(delivered), "one of them was said twice"
    return found


# Somebody comes while a large delivery goes on


def test_a_change_is_told_while_a_large_delivery_of_its_lane_goes_on(on_any_store: Busy) -> None:
    station = on_any_store
    for log in (station.vip, station.new):
        log.put(people("first"))
    station.run()
    station.to[0].requests.clear()
    station.vip.put(people(*users(0, LARGE), "first"))
    station.at(AT, lambda: station.new.put(people("x1", "x2", "x3", "first")))
    done = station.run()
    assert station.place_of("x1") <= AT + 2, "it waited"
    assert outcomes(done) == {NEW: ("completed", 3), VIP: ("completed", LARGE)}
    assert [one.span.audience for one in done] == [NEW, VIP]
    assert len(station.to[0].sent) == LARGE + 3, "told twice, or not at all"
    assert column(station.database, "SELECT state FROM span ORDER BY id") == ["completed"] * 4
    assert scalar(station.database, "SELECT count(*) FROM run WHERE kind = 'delivery'") == 2


def test_a_small_first_delivery_does_not_wait_for_a_large_one(on_any_store: Busy) -> None:
    station = on_any_store
    station.vip.put(people(*users(0, LARGE)))
    station.at(AT, lambda: station.new.put(people("x1", "x2", "x3")))
    assert outcomes(station.run()) == {NEW: ("completed", 3), VIP: ("completed", LARGE)}
    assert station.place_of("x1") <= AT + 2
    assert len(station.to[0].sent) == LARGE + 3


def test_it_is_said_when_it_is_done_and_not_when_the_run_ends(station: Busy) -> None:
    station.vip.put(people(*users(0, LARGE)))
    station.at(AT, lambda: station.new.put(people("x1")))
    station.run()
    (first, after), (second, last) = station.said
    assert (first.span.audience, first.outcome) == (NEW, "completed")
    assert after <= AT + 2
    assert (second.span.audience, second.accepted, last) == (VIP, LARGE, LARGE // 10 + 1)
    assert first.run == second.run is not None


def test_what_waits_together_is_told_smallest_first(station: Busy) -> None:
    """They are opened by their keys."""
    station.new.put(people(*users(200, 290)))
    station.old.put(people(*users(100, 130)))
    station.vip.put(people(*users(0, 30)))
    assert [one.span.audience for one in station.run()] == [OLD, VIP, NEW]
    assert station.to[0].sent == [*users(100, 130), *users(0, 30), *users(200, 290)]


def test_what_is_left_counts_and_not_what_there_was(station: Busy) -> None:
    station.vip.put(people(*users(0, LARGE)))
    station.at(LARGE // 10 - 4, lambda: station.new.put(people(*users(1000, 1100))))
    station.run()
    assert station.place_of("u00399") < station.place_of("u01000")


def test_a_large_delivery_goes_on_while_small_ones_come_again_and_again(station: Busy) -> None:
    """A second snapshot of the same audience, too, within the same run."""
    station.vip.put(people(*users(0, LARGE)))
    for number in range(10):
        members = people(*users(1000, 1001 + number))
        station.at(3 + 3 * number, lambda members=members: station.new.put(members))  # type: ignore[misc]
    done = station.run()
    assert {one.outcome for one in done} == {"completed"}
    assert [one.accepted for one in done if one.span.audience == VIP] == [LARGE]
    assert sum(one.accepted for one in done) == len(station.to[0].sent)
    assert sorted(station.to[0].told) == sorted([*users(0, LARGE), *users(1000, 1010)])


def test_requests_that_wait_for_the_rate_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At one a second the next batches of 10 have their turns after 29, 39 and 49 s. Nobody else
    is to wait for them, but only for what the third has used of the rate."""
    station = busy(tmp_path, rate=1.0, concurrency=4, reserve=0.0)
    waited: list[float] = []
    came, sleepers = threading.Event(), threading.Semaphore(0)

    def sleep(sending: send.Sending, seconds: float, _taken: Taken) -> None:
        if came.is_set():
            waited.append(seconds)
        elif seconds > 20:
            sleepers.release()
            if sending.withdraw.wait(10):
                raise send.Stopped("stopping")

    def comes(user_ids: Sequence[str]) -> None:
        if "u00020" not in user_ids:
            return
        assert all(sleepers.acquire(timeout=10) for _ in range(3))
        station.new.put(people("x1"))
        station.now += LOOK_EVERY
        came.set()

    monkeypatch.setattr(send.Sending, "_sleep", sleep)
    station.to[0].answer = comes
    station.vip.put(people(*users(0, 200)))
    station.run()
    assert min(waited) == 29 - LOOK_EVERY
    assert len(station.to[0].sent) == 201
    station.database.close()


# Told together, where that saves requests


def bundling(tmp_path: Path, **options: Any) -> Busy:
    return busy(tmp_path, **({"bundles": True, "max_calls": 1, "rate": 1e9} | options))


def test_who_comes_is_told_together_with_the_others_where_nobody_waits_long(
    tmp_path: Path,
) -> None:
    station = bundling(tmp_path)
    station.vip.put(people(*users(0, 100)))
    station.at(AT, lambda: station.new.put(people(*users(0, 3), *users(50, 60))))
    done = station.run()
    assert outcomes(done) == {NEW: ("completed", 13), VIP: ("completed", 100)}
    assert len(station.to[0].requests) == 103, "10 in two audiences take one request each"
    assert sum(one.saved for one in done) == 10
    station.database.close()


def test_a_large_delivery_is_left_out_where_the_others_would_wait_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """70 requests at one in ten seconds are 11 minutes."""
    monkeypatch.setattr(send.Sending, "_sleep", lambda *_: None)
    station = bundling(tmp_path, rate=0.1)
    for log in (station.vip, station.new):
        log.put(people("first"))
    station.run()
    station.to[0].requests.clear()
    station.vip.put(people("first", *users(0, 70)))
    station.at(AT, lambda: station.new.put(people("first", *users(60, 63))))
    done = station.run()
    assert outcomes(done) == {NEW: ("completed", 3), VIP: ("completed", 70)}
    requests = station.to[0].requests
    assert [request[0] for request in requests[AT : AT + 3]] == users(60, 63)
    assert len(requests) == 70 + 3, "3 are told twice, so that they do not wait"
    assert sum(one.saved for one in done) == 0
    station.database.close()


# In the daemon


@dataclass
class Wired:
    """What the loop of a lane calls of an ``App``."""

    station: Station
    books: Destinations

    def deliveries(self, progress: Any, ended: Any) -> Deliveries:
        return replace(self.station.deliveries(), progress=progress, ended=ended)


def test_what_is_held_is_said_once_however_often_a_lane_runs(
    station: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one cannot be read, and is tried again and again."""

    def damaged(_self: Spans, _span: Span) -> Any:
        raise ChunkDamaged("chunk 3 is damaged")

    monkeypatch.setattr(Spans, "changes", damaged)
    station.limits = Limits(max_initial=20)
    station.vip.put(people(*users(0, 21)))
    station.new.put(people("x1"))
    turns = LaneTurns(
        cast(App, Wired(station, station.books)),
        "deliver:fake:initial",
        "fake",
        Lane.INITIAL,
        stop=station.stop,
        patience=Patience(lambda: station.now, first=1.0, longest=1.0),
        progress=lambda _span: None,
        clock=station.clock,
        counters=Counters(),
    )
    with capture_logs() as logs:
        for _ in range(3):
            turns.turn()
            station.now += CANNOT_MOVE
    assert [log["event"] for log in logs if log["event"] == "delivery held"] == ["delivery held"]
    assert len([log for log in logs if log["event"] == "delivery failed"]) == 3


# What people order meanwhile


def orders(station: Busy) -> Orders:
    return Orders(station.database, station.clock)


def test_a_first_delivery_that_is_approved_meanwhile(station: Busy) -> None:
    station.limits = Limits(max_initial=20)
    station.new.put(people(*users(1000, 1021)))
    station.run()
    station.limits = Limits()
    station.vip.put(people(*users(0, LARGE)))

    def approve() -> None:
        (held,) = station.spans.held()
        station.spans.approve(held, reason=None, actor="ann@ops")

    station.at(AT, approve)
    said = [(one.span.audience, one.outcome) for one in station.run()]
    assert said == [(NEW, "held"), (NEW, "completed"), (VIP, "completed")]
    assert station.place_of("u01000") <= AT + 2


def test_one_that_is_resumed_meanwhile(station: Busy) -> None:
    """It was stopped in the same run, and is said twice: each time what came since."""
    station.vip.put(people(*users(0, LARGE)))
    station.new.put(people(*users(1000, 1100)))
    station.at(3, lambda: orders(station).pause(NEW, "NEW", station.new.kind, ANN))
    station.at(20, lambda: orders(station).resume(NEW, ANN))
    done = station.run()
    assert [(one.span.audience, one.outcome) for one in done] == [
        (NEW, "stopped"),
        (NEW, "completed"),
        (VIP, "completed"),
    ]
    assert [one.accepted for one in done] == [30, 70, LARGE]
    assert station.place_of("u01099") < LARGE // 10
    assert len(station.to[0].sent) == LARGE + 100


def test_one_that_is_not_to_be_told_any_more_when_others_come(station: Busy) -> None:
    station.vip.put(people(*users(0, LARGE)))

    def comes() -> None:
        station.new.put(people("x1"))
        station.keys = (OLD, NEW)

    station.at(AT, comes)
    done = station.run()
    assert outcomes(done) == {VIP: ("stopped", len(station.to[0].sent) - 1), NEW: ("completed", 1)}
    assert len(station.to[0].requests) <= AT + 2


def test_one_that_is_retired_meanwhile(station: Busy) -> None:
    """As a process asks anew how audiences are told, everybody hears of it."""
    station.new.put(people("x1", "x2"))
    station.old.put(people("o1"))
    station.run()
    station.to[0].requests.clear()
    station.vip.put({})
    station.run()
    station.vip.put(people(*users(0, LARGE)))

    def retire() -> None:
        book = Retirement(database=station.database, clock=station.clock, given=ANN)
        book.retire(NEW, station.new.stage({}), OnRetire.TELL_FALSE, station.new.lease)
        station.tell = LEAVING

    station.at(AT, retire)
    station.run()
    assert station.place_of("x1") <= AT + 2
    assert station.to[0].state()["x1"] is False


def test_a_resync_that_is_ordered_meanwhile(station: Busy) -> None:
    """What was told so far is told again, by a delivery of its own; the run goes on with it."""
    station.vip.put(people(*users(0, LARGE)))
    station.new.put(people(*users(1000, 1100)))

    def resync() -> None:
        orders(station).resync(NEW, ["fake"], ANN)
        station.new.put(people(*users(1000, 1101)))

    station.at(3, resync)
    done = station.run()
    assert [(str(one.span.kind), one.outcome, one.accepted) for one in done] == [
        ("initial", "stopped", 30),
        ("resync", "completed", 101),
        ("initial", "completed", LARGE),
    ]
    assert station.run() == []


# What cannot be told ends no walk again and again


def walks(monkeypatch: pytest.MonkeyPatch) -> list[AudienceKey]:
    begun: list[AudienceKey] = []
    changes = Spans.changes

    def counted(self: Spans, span: Span) -> Any:
        begun.append(span.audience)
        return changes(self, span)

    monkeypatch.setattr(Spans, "changes", counted)
    return begun


@pytest.mark.parametrize("failure", [None, ChunkDamaged("chunk 3 is damaged")])
def test_one_that_cannot_be_opened_ends_one_walk(
    station: Busy, monkeypatch: pytest.MonkeyPatch, failure: ChunkDamaged | None
) -> None:
    open_span, begun = Spans.open, walks(monkeypatch)

    def opened(self: Spans, waiting: Any, *arguments: Any, **named: Any) -> Any:
        if waiting.audience != NEW:
            return open_span(self, waiting, *arguments, **named)
        if failure:
            raise failure
        return None

    monkeypatch.setattr(Spans, "open", opened)
    station.vip.put(people(*users(0, LARGE)))
    station.at(AT, lambda: station.new.put(people("x1")))
    done = station.run()
    assert [one.outcome for one in done] == (["failed"] if failure else []) + ["completed"]
    assert begun == [VIP, VIP]
    assert len(station.to[0].sent) == LARGE


def test_one_that_cannot_be_read_is_said_once(
    station: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = Spans.changes

    def damaged(self: Spans, span: Span) -> Any:
        if span.audience == OLD:
            raise ChunkDamaged("chunk 3 is damaged")
        return changes(self, span)

    for log in (station.vip, station.old, station.new):
        log.put(people("first"))
    station.run()
    station.to[0].requests.clear()
    monkeypatch.setattr(Spans, "changes", damaged)
    station.vip.put(people("first", *users(0, LARGE)))
    station.old.put(people("first", "o1"))
    for number in (5, 15, 25):
        station.at(
            number, lambda n=number: station.new.put(people(*users(1000, 1000 + n), "first"))
        )  # type: ignore[misc]
    done = station.run()
    assert [one.span.audience for one in done] == [OLD, NEW, NEW, NEW, VIP]
    assert [one.outcome for one in done] == ["failed"] + ["completed"] * 4


def test_a_store_that_cannot_be_asked_ends_no_walk(
    station: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = Spans.waiting

    def broken(self: Spans, *arguments: Any) -> Any:
        if 0 < len(station.to[0].sent) < LARGE:
            raise StoreFailed("the store failed: database is locked")
        return waiting(self, *arguments)

    monkeypatch.setattr(Spans, "waiting", broken)
    station.vip.put(people(*users(0, LARGE)))
    assert [one.outcome for one in station.run()] == ["completed"]
    assert len(station.to[0].sent) == LARGE


def test_a_stop_ends_the_run_whoever_waits(station: Busy) -> None:
    station.vip.put(people(*users(0, LARGE)))

    def comes() -> None:
        station.new.put(people("x1"))
        station.stop.set()

    station.at(AT, comes)
    assert outcomes(station.run()) == {VIP: ("stopped", 10 * AT)}
    assert len(station.to[0].requests) == AT


# Whatever comes


@pytest.mark.usefixtures("in_line")
@pytest.mark.parametrize("bundles", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_whatever_comes_meanwhile_all_are_told_once(
    tmp_path: Path, seed: int, bundles: bool
) -> None:
    """In one run, while captures come at any time; what came too late for it in the next one."""
    draw = random.Random(seed)
    options = {"concurrency": draw.randint(1, 5), "max_calls": 1 if bundles else draw.randint(1, 9)}
    station = busy(tmp_path, bundles=bundles, **options)
    station.limits = Limits(max_initial=10_000)
    logs = (station.vip, station.old, station.new)

    def comes() -> None:
        log = draw.choice(logs)
        log.put(people(*draw.sample(users(0, 150), draw.choice([1, 5, 100]))))

    for log in logs[: draw.randint(1, 3)]:
        log.put(people(*users(0, draw.choice([3, 60, 150]))))
    for _ in range(12):
        station.at(draw.randint(1, 150), comes)
    done = station.run()
    while later := station.run():
        done += later
    assert [str(one.error) for one in done if one.outcome != "completed"] == []
    bodies = station.to[0].bodies()
    assert all(len(of_id) == 1 for of_id in bodies.values())
    sent = [body for member in station.to[0].accepted for body in member.bodies]
    assert len(sent) == len(bodies) == sum(one.accepted for one in done), "told twice"
    query = "SELECT count(*) FROM span WHERE state <> 'completed' OR total <> accepted"
    assert scalar(station.database, query) == 0
    for log in logs:
        if log.seq:
            assert station.spans.told_seq("fake", log.key) == log.seq
    station.database.close()
