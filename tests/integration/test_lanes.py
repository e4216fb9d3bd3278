"""Delivery runs over a real store: pauses, lanes, leases, books, and what a later run goes on with.

(P2, P3, P5, P6, P7, P9, P19)
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from audience_sync.domain.audience import AudienceKey, Tell
from audience_sync.domain.guard import Limits
from audience_sync.domain.span import Books, Span, Tally
from audience_sync.errors import (
    BadCalls,
    ChunkDamaged,
    CredentialsRefused,
    DestinationPaused,
    LeaseLost,
    RetryLater,
    StoreFailed,
)
from audience_sync.pipeline import send
from audience_sync.pipeline.allowance import Taken
from audience_sync.pipeline.delivered import Delivered
from audience_sync.pipeline.deliveries import Deliveries
from audience_sync.pipeline.ports.leases import Lease
from audience_sync.pipeline.subscription import Subscription
from audience_sync.store import migrate
from audience_sync.store.destinations import Destinations
from audience_sync.store.engine import Database
from audience_sync.store.leases import Leases
from audience_sync.store.quotas import Quotas
from audience_sync.store.spans import Spans
from tests.fakes.destination import FakeDestination
from tests.fakes.snapshot_log import VIP, Log, column, new_lease, people, scalar

OLD = AudienceKey("old_hands")
HOUR = timedelta(hours=1)
EXITS_TOO = frozenset({Tell.ENTERED, Tell.EXITED})


def users(first: int, last: int) -> list[str]:
    return [f"u{number:05}" for number in range(first, last)]


@dataclass
class Station:
    """A store with two audiences, and destinations that are subscribed to both."""

    path: Path
    to: Sequence[FakeDestination]
    limits: Limits = field(default_factory=Limits)
    tell: frozenset[Tell] = EXITS_TOO
    elapsed: Callable[[], float] = time.monotonic
    progress: Callable[[Span], None] = lambda _span: None
    stop: threading.Event = field(default_factory=threading.Event)
    keys: Collection[AudienceKey] = (VIP, OLD)
    ended: Callable[[Delivered], None] = lambda _delivered: None
    url: str = ""
    """Of another store than a file at ``path``."""

    def __post_init__(self) -> None:
        self.database = Database(self.url or f"sqlite:///{self.path}")
        migrate.upgrade(self.database)
        self.vip, self.old = Log(self.database, VIP, 100), Log(self.database, OLD, 100)
        self.clock = self.vip.clock
        self.spans = Spans(self.database, self.clock)
        self.books = Destinations(self.database, self.clock)

    def subscriptions(self) -> Mapping[str, Mapping[AudienceKey, Subscription]]:
        how = Subscription(tell=self.tell, limits=self.limits)
        return {to.name: dict.fromkeys(self.keys, how) for to in self.to}

    def deliveries(self) -> Deliveries:
        return Deliveries(
            destinations={to.name: to for to in self.to},
            subscriptions=self.subscriptions,
            spans=self.spans,
            book=self.books,
            quotas=Quotas(self.database),
            leases=Leases(self.database),
            installation="installation",
            clock=self.clock,
            elapsed=self.elapsed,
            progress=self.progress,
            ended=self.ended,
        )

    def run(self, only: Collection[AudienceKey] | None = None) -> list[Delivered]:
        """One delivery run, as ``sync`` does it."""
        try:
            return list(self.deliveries().deliver(self.stop, only))
        finally:
            assert all(to.in_flight == to.open_senders == 0 for to in self.to)

    def outcomes(self) -> list[str]:
        return [delivered.outcome for delivered in self.run()]

    def requests(self) -> int:
        return sum(len(to.requests) for to in self.to)


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    made = Station(path=tmp_path / "state.db", to=[FakeDestination()])
    yield made
    made.database.close()


@pytest.fixture
def to(station: Station) -> FakeDestination:
    return station.to[0]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were waited; none of them pass."""
    waited: list[float] = []

    def sleep(sending: send.Sending, seconds: float, _taken: Taken) -> None:
        waited.append(max(seconds, 0.0))
        if sending.stop.is_set():
            raise send.Stopped("stopping")

    monkeypatch.setattr(send.Sending, "_sleep", sleep)
    return waited


def accept(_user_ids: Sequence[str]) -> None:
    pass


def refuse_key(_user_ids: Sequence[str]) -> None:
    raise CredentialsRefused("key refused (401)")


def members(station: Station) -> Mapping[str, object]:
    """What a destination with only the VIP audience must have been told at last."""
    ever = set().union(*station.vip.kept.values())
    return {user_id: user_id in station.vip.kept[station.vip.seq] for user_id in ever}


# What is told


def test_first_the_members_then_only_what_changed(station: Station, to: FakeDestination) -> None:
    station.vip.put(people(*users(0, 60)))
    assert station.outcomes() == ["completed"]
    assert set(to.told) == set(users(0, 60))
    station.vip.put(people(*users(5, 70)))
    (delivered,) = station.run()
    assert (delivered.outcome, delivered.accepted) == ("completed", 15)
    assert to.state() == members(station)
    assert len(to.told) == 75
    before = scalar(station.database, "SELECT count(*) FROM run")
    assert station.run() == []
    assert scalar(station.database, "SELECT count(*) FROM run") == before, "an idle run writes"


def test_several_captures_become_one_net_change(station: Station, to: FakeDestination) -> None:
    station.vip.put(people(*users(0, 50)))
    station.run()
    station.vip.put(people(*users(10, 50), "passing"))
    station.vip.put(people(*users(5, 50), "passing"))
    station.vip.put(people(*users(5, 50)))
    (delivered,) = station.run()
    assert delivered.accepted == 5
    assert "passing" not in to.told
    assert to.state() == {u: u >= "u00005" for u in users(0, 50)}


def test_what_is_not_to_be_told_is_not(station: Station, to: FakeDestination) -> None:
    station.tell = frozenset({Tell.ENTERED})
    station.vip.put(people(*users(0, 20)))
    station.run()
    station.vip.put({**people(*users(10, 25)), "u00015": {"email": "new@example.com"}})
    (delivered,) = station.run()
    assert (delivered.outcome, delivered.accepted, delivered.span.books.total) == (
        "completed",
        5,
        5,
    )
    assert to.told[20:] == users(20, 25)
    station.tell = frozenset(Tell)
    station.vip.put({**people(*users(10, 25)), "u00015": {"email": "other@example.com"}})
    station.run()
    assert to.told[25:] == ["u00015"]


def test_an_open_span_is_told_as_it_was_begun(station: Station, to: FakeDestination) -> None:
    station.vip.put(people(*users(0, 50)))
    station.run()
    station.vip.put(people(*users(40, 100)))
    to.requests.clear()
    to.answer = stop_at(station, 1)
    station.run()
    station.stop.clear()
    to.answer = accept
    station.tell = frozenset({Tell.ENTERED})
    (delivered,) = station.run()
    assert (delivered.outcome, delivered.span.books.total) == ("completed", 90)
    assert delivered.span.books.accepted == 90
    assert to.state() == members(station)


def test_only_what_is_named(station: Station, to: FakeDestination) -> None:
    station.vip.put(people(*users(0, 5)))
    station.old.put(people(*users(5, 9)))
    station.run(only={OLD})
    assert set(to.told) == set(users(5, 9))


def test_incremental_before_initial(station: Station, to: FakeDestination) -> None:
    station.vip.put(people(*users(0, 30)))
    station.run()
    station.old.put(people(*users(100, 200)))
    station.vip.put(people(*users(0, 40)))
    assert [str(d.span.lane) for d in station.run()] == ["incremental", "initial"]
    assert set(to.told[30:40]) == set(users(30, 40))


def test_captures_go_on_while_a_span_is_open(station: Station, to: FakeDestination) -> None:
    """A span stays pinned to its snapshots; what changed since is the next one (P6, P9)."""
    station.vip.put(people(*users(0, 100)))
    to.answer = stop_at(station, 3)
    assert station.outcomes() == ["stopped"]
    station.vip.put(people(*users(50, 120)))
    station.stop.clear()
    to.answer = accept
    assert station.outcomes() == ["completed", "completed"], "the next one in the same run"
    assert sorted(to.told[:100]) == users(0, 100), "told of a later snapshot"
    assert to.state() == members(station)


def test_the_end_of_a_first_delivery_tries_nobody_else_again(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever could not be told just before is said once, and asked once."""
    station.old.put(people("u1"))
    station.run()
    station.old.put(people("u1", "u2"))
    station.vip.put(people(*users(0, 30)))
    changes, read = Spans.changes, []

    def damaged(self: Spans, span: Span) -> Any:
        read.append(span.audience)
        if span.audience == OLD:
            raise ChunkDamaged("chunk 3 is damaged")
        return changes(self, span)

    monkeypatch.setattr(Spans, "changes", damaged)
    done = [(one.span.audience, one.outcome) for one in station.run()]
    assert done == [(OLD, "failed"), (VIP, "completed")]
    assert read == [OLD, VIP]


def stop_at(station: Station, number: int) -> Callable[[Sequence[str]], None]:
    """Ask to stop when so many requests have started."""

    def answer(_user_ids: Sequence[str]) -> None:
        if len(station.to[0].requests) >= number:
            station.stop.set()
        time.sleep(0.01)

    return answer


# Held, and no longer configured


def test_a_held_first_delivery_waits_for_its_approval(
    station: Station, to: FakeDestination
) -> None:
    station.limits = Limits(max_initial=50)
    station.vip.put(people(*users(0, 51)))
    station.old.put(people(*users(0, 50)))
    assert sorted(station.outcomes()) == ["completed", "held"]
    assert station.outcomes() == ["held"]
    assert len(to.told) == 50
    (held,) = station.spans.held()
    station.spans.approve(held, reason=None, actor="ann@ops")
    assert station.outcomes() == ["completed"]
    assert len(to.told) == 101


def test_a_held_capture_tells_nothing(station: Station, to: FakeDestination) -> None:
    station.vip.put(people(*users(0, 20)))
    station.run()
    held = station.vip.hold({})
    assert station.run() == []
    station.vip.approve(held, {})
    assert station.outcomes() == ["completed"]
    assert to.state() == dict.fromkeys(users(0, 20), False)


def test_an_audience_that_is_gone_tells_nothing(station: Station, to: FakeDestination) -> None:
    station.vip.put(people(*users(0, 100)))
    to.answer = stop_at(station, 3)
    station.run()
    before = to.requests.copy()
    station.stop.clear()
    to.answer = accept
    station.keys = (OLD,)
    assert station.run() == []
    assert to.requests == before
    station.old.put(people("one more"))
    assert station.outcomes() == ["completed"]
    assert to.requests == [*before, ["one more"]]
    station.keys = (VIP, OLD)
    station.run()
    assert sorted(to.told) == ["one more", *users(0, 100)], "when it comes back, it goes on"


def test_a_destination_that_is_gone_is_told_nothing(station: Station, to: FakeDestination) -> None:
    station.vip.put(people(*users(0, 100)))
    to.answer = stop_at(station, 3)
    station.run()
    station.stop.clear()
    before = to.requests.copy()
    station.to = [FakeDestination(name="other")]
    station.run()
    assert len(station.to[0].told) == 100
    assert to.requests == before


# Pauses


def test_a_refused_key_pauses_and_the_next_run_asks_once(
    station: Station, to: FakeDestination
) -> None:
    station.old.put(people(*users(0, 200)))
    station.vip.put(people(*users(0, 130)))
    refused_at = 5

    def answer(_user_ids: Sequence[str]) -> None:
        if len(to.requests) > refused_at:
            refuse_key([])
        time.sleep(0.005)

    to.answer = answer
    delivered = station.run()
    assert [d.outcome for d in delivered] == ["paused", "paused"]
    assert {type(d.error) for d in delivered} == {CredentialsRefused}
    pause = station.books.paused("fake")
    assert pause is not None
    assert (pause.reason, pause.until) == ("key refused (401)", None)
    assert delivered[0].accepted == delivered[0].span.books.accepted > 0
    assert len(to.requests) <= refused_at + to.concurrency

    to.requests.clear()
    to.answer = refuse_key
    station.run()
    assert len(to.requests) == 1, "a paused destination is asked with one request"
    again = station.books.paused("fake")
    assert again is not None
    assert again.since == pause.since

    beside: list[int] = []

    def probed(_user_ids: Sequence[str]) -> None:
        if station.books.paused("fake"):
            before = len(to.requests)
            time.sleep(0.05)
            beside.append(len(to.requests) - before)

    to.answer = probed
    assert station.outcomes() == ["completed", "completed"]
    assert beside == [0], "the pause ends with the first acceptance, and nothing goes beside it"
    assert station.books.paused("fake") is None
    assert set(to.told) == set(users(0, 200))
    assert len(to.told) <= 330 + to.concurrency * to.max_calls


@pytest.mark.usefixtures("in_line")
def test_members_that_cannot_be_sent_do_not_end_a_pause(
    station: Station, to: FakeDestination
) -> None:
    """Nor does it count that the span had acceptances before it was paused."""
    station.vip.put(people(*users(0, 100)))

    def answer(user_ids: Sequence[str]) -> None:
        if user_ids[0] >= "u00020":
            refuse_key(user_ids)

    to.answer = answer
    station.run()
    assert scalar(station.database, "SELECT accepted FROM span") == 20
    paused: list[bool] = []
    to.requests.clear()
    to.answer = lambda _: paused.append(station.books.paused("fake") is not None)
    to.refused = users(0, 60)
    assert station.outcomes() == ["completed"]
    assert paused == [True, False, False, False]
    assert station.books.paused("fake") is None


def test_asked_to_wait_long_nothing_is_sent_until_then(
    station: Station, to: FakeDestination
) -> None:
    station.vip.put(people(*users(0, 100)))
    to.concurrency = 1

    def answer(_user_ids: Sequence[str]) -> None:
        if len(to.requests) == 4:
            raise RetryLater("quota used", after=7200.0)

    to.answer = answer
    (delivered,) = station.run()
    assert isinstance(delivered.error, DestinationPaused)
    assert delivered.error.exit_code == 69
    pause = station.books.paused("fake")
    assert pause is not None
    assert pause.until == station.clock() + 2 * HOUR
    for _ in range(2):
        station.clock.now += timedelta(minutes=59)
        (waiting,) = station.run()
        assert (waiting.outcome, waiting.accepted) == ("paused", 0)
        assert len(to.requests) == 4
    station.clock.now += timedelta(minutes=2)
    assert station.outcomes() == ["completed"]
    assert sorted(to.told) == users(0, 100)
    assert station.books.paused("fake") is None


def test_no_answer_at_all_pauses_and_loses_nothing(
    station: Station, to: FakeDestination, waits: list[float]
) -> None:
    station.vip.put(people(*users(0, 50)))

    def answer(_user_ids: Sequence[str]) -> None:
        raise RetryLater("unavailable (503)")

    to.answer = answer
    (delivered,) = station.run()
    assert delivered.error is not None
    assert delivered.error.exit_code == 69
    assert "unavailable (503)" in str(delivered.error)
    assert delivered.error.hint
    to.answer = accept
    assert station.outcomes() == ["completed"]
    assert sorted(to.told) == users(0, 50)


def test_too_many_rejections_pause_and_are_not_kept(station: Station, to: FakeDestination) -> None:
    station.vip.put(people(*users(0, 300)))

    def answer(_user_ids: Sequence[str]) -> None:
        raise BadCalls("request refused (400)")

    to.answer = answer
    (delivered,) = station.run()
    assert delivered.outcome == "paused"
    kept = scalar(station.database, "SELECT count(*) FROM rejection")
    assert kept == delivered.rejected <= 100
    to.answer = accept
    station.run()
    assert len(set(to.told)) == 300 - kept


def test_a_destination_that_paused_is_not_asked_by_its_other_lane(
    station: Station, to: FakeDestination
) -> None:
    station.vip.put(people(*users(0, 30)))
    station.run()
    station.vip.put(people(*users(0, 35)))
    station.old.put(people(*users(0, 30)))
    to.requests.clear()
    to.answer = refuse_key
    delivered = station.run()
    assert [(str(d.span.lane), d.outcome) for d in delivered] == [
        ("incremental", "paused"),
        ("initial", "paused"),
    ]
    assert len(to.requests) == 1


def test_one_destination_down_delays_no_other(tmp_path: Path) -> None:
    """The one that is down holds its request until the other has had both lanes."""
    down, up = FakeDestination(name="a_down"), FakeDestination(name="up")
    station = Station(path=tmp_path / "state.db", to=[down, up])
    station.vip.put(people(*users(0, 20)))
    station.run()
    station.vip.put(people(*users(0, 40)))
    station.old.put(people(*users(0, 60)))
    finished = threading.Event()
    lanes: list[str] = []

    def no_answer(_user_ids: Sequence[str]) -> None:
        assert finished.wait(30), "the other destination waits for this one"
        raise RetryLater("quota used", after=3600.0)

    def ended(one: Delivered) -> None:
        if one.span.destination == "up":
            lanes.append(one.span.lane)
            if len(lanes) == 2:
                finished.set()

    down.answer, station.ended = no_answer, ended
    delivered = station.run()
    assert {(d.span.destination, d.outcome) for d in delivered} == {
        ("a_down", "paused"),
        ("up", "completed"),
    }
    assert lanes == ["incremental", "initial"]
    assert len(up.told) == 100
    assert station.books.paused("up") is None
    station.database.close()


# Books, repeats, going on


def test_the_stored_books_add_up_at_every_commit(
    station: Station, to: FakeDestination, waits: list[float]
) -> None:
    draw = random.Random(11)
    poison = set(users(0, 400)[7::41])
    station.vip.put(people(*users(0, 400)))

    def answer(user_ids: Sequence[str]) -> None:
        time.sleep(draw.random() * 0.004)
        if poison.intersection(user_ids):
            raise BadCalls("request refused (400)")
        if draw.random() < 0.1:
            raise RetryLater("no complete answer")

    def check(span: Span) -> None:
        if span.position is None:
            return  # as it was found
        with station.database.read() as connection:
            row = connection.exec_driver_sql("SELECT * FROM span").mappings().one()
            refused = connection.exec_driver_sql("SELECT user_id FROM rejection").scalars().all()
        handled = [u for u in users(0, 400) if u <= row["position"]]
        assert row["total"] == 400
        assert row["accepted"] + row["rejected"] + row["skipped"] == len(handled)
        assert set(refused) == poison.intersection(handled)
        assert row["rejected"] == len(refused)
        assert (span.position, span.books.remaining) == (row["position"], 400 - len(handled))
        commits.append(span)

    commits: list[Span] = []
    to.answer, to.refused, station.progress = answer, (), check
    assert station.outcomes() == ["completed"]
    assert len(commits) > 5
    assert set(to.told) == set(users(0, 400)) - poison


@pytest.mark.usefixtures("in_line")
def test_after_a_stop_the_rest_goes_with_the_ids_it_would_have_had(tmp_path: Path) -> None:
    twins = [
        Station(path=tmp_path / name, to=[FakeDestination()]) for name in ("stopped", "undisturbed")
    ]
    for twin in twins:
        twin.vip.put(people(*users(0, 150)))
        twin.run()
        twin.vip.put(people(*users(140, 440)))
    stopped, undisturbed = twins
    for number in (2, 4, 7):
        stopped.to[0].requests.clear()
        stopped.to[0].answer = stop_at(stopped, number)
        assert stopped.outcomes() == ["stopped"]
        stopped.stop.clear()
    stopped.to[0].answer = accept
    stopped.run()
    undisturbed.run()
    bodies = stopped.to[0].bodies()
    assert bodies == undisturbed.to[0].bodies()
    assert len(stopped.to[0].told) == len(bodies) == 580, "a stop repeats nothing"
    for twin in twins:
        twin.database.close()


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_the_last_state_is_told(
    tmp_path: Path, waits: list[float], seed: int
) -> None:
    """Random memberships, faults, pauses and stops; then undisturbed to the end."""
    draw = random.Random(seed)
    each = 1 + seed % 2
    to = FakeDestination(
        concurrency=draw.randint(1, 5), max_calls=draw.randint(1, 12), with_track=each == 2
    )
    station = Station(path=tmp_path / "state.db", to=[to], keys=(VIP,))
    lost = 0

    def answer(user_ids: Sequence[str]) -> None:
        nonlocal lost
        chance = draw.random()
        if chance < 0.04:
            lost += 1
            raise RetryLater("no complete answer")
        if chance < 0.06:
            station.stop.set()
        if chance < 0.08:
            refuse_key([])
        if 0.08 < chance < 0.12 and len(user_ids) > 1:
            raise BadCalls("request refused (413)")

    for _ in range(8):
        station.vip.put(people(*draw.sample(users(0, 90), draw.randint(20, 80))))
        for _ in range(draw.randint(0, 2)):
            to.answer = answer
            station.run()
            station.stop.clear()
    to.answer = accept
    while station.run():
        pass
    told = to.state()
    expected = {u: u in station.vip.kept[station.vip.seq] for u in told}
    assert told == expected
    assert set(station.vip.kept[station.vip.seq]) <= told.keys()
    assert all(len(bodies) == 1 for bodies in to.bodies().values())
    assert each * sum(column(station.database, "SELECT accepted FROM span")) == len(to.bodies())
    assert column(station.database, "SELECT DISTINCT state FROM span") == ["completed"]
    station.database.close()


# Rates


@pytest.mark.parametrize(
    ("initial_open", "seconds"),
    [(False, 200 / 100 - 1 - 0.1), (True, 200 / 20 - 1 - 0.5)],
    ids=["all of the rate", "the reserve"],
)
def test_the_rate_is_split_while_an_initial_span_is_open(
    station: Station,
    to: FakeDestination,
    monkeypatch: pytest.MonkeyPatch,
    initial_open: bool,
    seconds: float,
) -> None:
    """200 changes in batches of 10; a second's worth goes at once, the last at its turn."""
    now = [1000.0]

    def sleep(_sending: send.Sending, wait: float, _taken: Taken) -> None:
        now[0] += max(wait, 0.0)

    to.rate, to.reserve, to.concurrency = 100.0, 0.2, 1
    station.elapsed = lambda: now[0]
    station.vip.put(people(*users(0, 20)))
    station.run()
    if initial_open:
        station.old.put(people(*users(0, 20)))
        station.stop.set()
        station.run(only={OLD})
        station.stop.clear()
        assert scalar(station.database, "SELECT count(*) FROM span WHERE state = 'open'") == 1
    station.vip.put(people(*users(0, 220)))
    monkeypatch.setattr(send.Sending, "_sleep", sleep)
    start = now[0]
    station.run(only={VIP})
    assert now[0] - start == pytest.approx(seconds, abs=0.01)


def test_the_initial_lane_leaves_the_reserve(
    station: Station, to: FakeDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]

    def sleep(_sending: send.Sending, wait: float, _taken: Taken) -> None:
        now[0] += max(wait, 0.0)

    to.rate, to.reserve, to.concurrency = 100.0, 0.2, 1
    station.elapsed = lambda: now[0]
    station.vip.put(people(*users(0, 400)))
    monkeypatch.setattr(send.Sending, "_sleep", sleep)
    station.run()
    assert now[0] - 1000 == pytest.approx(400 / 80 - 1 - 10 / 80, abs=0.01)


# Leases and the store


def test_a_lane_that_is_leased_is_left_alone(station: Station, to: FakeDestination) -> None:
    station.vip.put(people(*users(0, 30)))
    with Leases(station.database).hold("deliver:fake:initial"):
        assert station.run() == []
        assert not to.requests
    assert station.outcomes() == ["completed"]


def test_whoever_lost_the_lease_commits_nothing_and_sends_nothing_more(
    station: Station, to: FakeDestination
) -> None:
    station.vip.put(people(*users(0, 200)))
    station.old.put(people(*users(500, 700)))
    taken: list[int] = []

    def answer(user_ids: Sequence[str]) -> None:
        # By who is in it: a count may have gone on before anybody reads it.
        if user_ids[0] in ("u00070", "u00570"):  # of the eighth, whichever span is walked
            new_lease(station.database, "deliver:fake:initial")
            taken.append(scalar(station.database, "SELECT sum(accepted) FROM span"))
        time.sleep(0.01)

    to.answer = answer
    with pytest.raises(LeaseLost):
        station.run()
    assert scalar(station.database, "SELECT sum(accepted) FROM span") == taken[0]
    assert len(to.requests) <= 8 + to.concurrency, "requests of an ex-holder"
    assert len({user_id < "u00500" for user_id in to.sent}) == 1, "another span was begun"


class FullStore(Spans):
    """The disk is full from the third commit on."""

    commits = 0

    def advance(self, walked: Span, books: Books, tally: Tally, lease: Lease) -> Span:
        self.commits += 1
        if self.commits >= 3:
            raise StoreFailed("the store failed: database or disk is full")
        return super().advance(walked, books, tally, lease)


def test_a_store_that_is_full_ends_the_run(station: Station, to: FakeDestination) -> None:
    """What is sent now cannot be written down, so it would go again: no other span is begun."""
    station.vip.put(people(*users(0, 200)))
    station.old.put(people(*users(500, 700)))
    whole = station.spans
    station.spans = FullStore(station.database, station.clock)
    delivered = station.run()
    assert [d.outcome for d in delivered] == ["failed", "failed"]
    assert {d.error.exit_code for d in delivered if d.error} == {74}
    assert len({user_id < "u00500" for user_id in to.sent}) == 1, "another span was begun"
    assert station.spans.commits == 3
    station.spans = whole
    assert station.outcomes() == ["completed", "completed"]
    assert len(to.told) - len(set(to.told)) <= to.concurrency * to.max_calls


def test_runs_are_recorded(station: Station, to: FakeDestination) -> None:
    station.vip.put(people(*users(0, 30)))
    to.answer = refuse_key
    station.run()
    to.answer = accept
    station.run()
    outcomes = column(
        station.database, "SELECT outcome FROM run WHERE kind = 'delivery' ORDER BY id"
    )
    assert outcomes == ["failed", "completed"]
    error = "SELECT error FROM run WHERE kind = 'delivery' ORDER BY id"
    assert column(station.database, error) == ["key refused (401)", None]
