"""A lane's share of the rate while it is at work: the other lane begins, and ends. (P9)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from audience_sync.domain.quota import Lane
from audience_sync.errors import StoreFailed
from audience_sync.pipeline import send
from audience_sync.pipeline.allowance import Taken
from audience_sync.pipeline.lane_share import LOOK_EVERY
from audience_sync.store.leases import Leases
from audience_sync.store.spans import Spans
from tests.fakes.destination import FakeDestination
from tests.fakes.snapshot_log import VIP, execute, people
from tests.integration.test_lanes import OLD, Station, users

RATE, EACH = 100.0, 10


class Watched(Station):
    """Only waits for the rate take time, and each request is noted with its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.now = 1000.0
        self.elapsed = lambda: self.now
        self.sent: list[tuple[float, str]] = []
        self.to[0].answer = self.answer

    def answer(self, user_ids: Sequence[str]) -> None:
        self.sent.append((self.now, user_ids[0]))

    def initial_begins(self) -> None:
        """In another process."""
        self.old.put(people(*users(9000, 9020)))
        with Leases(self.database).hold("deliver:fake:initial") as lease:
            (waiting,) = self.spans.waiting("fake", [OLD])
            span = self.spans.open(waiting, "fake", tell=self.tell, limits=self.limits, lease=lease)
        assert span is not None

    def initial_ends(self) -> None:
        ended = "state = 'completed', accepted = total"
        execute(self.database, f"UPDATE span SET {ended} WHERE lane = 'initial'")

    def between(self, start: float, end: float) -> int:
        """Calls from ``start`` on and before ``end``, in seconds of the run."""
        return EACH * sum(start <= at - 1000 < end for at, _ in self.sent)


@pytest.fixture
def station(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    to = FakeDestination(rate=RATE, reserve=0.2, concurrency=1, max_calls=EACH)
    made = Watched(path=tmp_path / "state.db", to=[to])

    def sleep(_sending: send.Sending, seconds: float, _taken: Taken) -> None:
        made.now += seconds

    made.vip.put(people("u00000"))
    made.run(only={VIP})
    made.sent.clear()
    made.now = 1000.0
    monkeypatch.setattr(send.Sending, "_sleep", sleep)
    yield made
    made.database.close()


def at_request(station: Watched, number: int, what: Any) -> None:
    answer = station.to[0].answer

    def answered(user_ids: Sequence[str]) -> None:
        answer(user_ids)
        if len(station.sent) == number:
            what()

    station.to[0].answer = answered


def test_the_incremental_lane_makes_room_when_an_initial_delivery_begins(
    station: Watched,
) -> None:
    at_request(station, 30, station.initial_begins)  # after 2 seconds: one is saved up
    station.vip.put(people(*users(0, 801)))
    station.run(only={VIP})
    assert station.between(0, 2) == pytest.approx(RATE * 3, abs=EACH)
    began = 2 + LOOK_EVERY
    assert station.between(began + 0.2, began + 10.2) == pytest.approx(RATE * 0.2 * 10, abs=EACH)


def test_it_takes_the_room_back_when_that_ends(station: Watched) -> None:
    station.initial_begins()
    at_request(station, 22, station.initial_ends)  # 20 at once, then one every half second
    station.vip.put(people(*users(0, 801)))
    station.run(only={VIP})
    ended = station.sent[21][0] - 1000
    after = station.between(ended + LOOK_EVERY + 0.6, ended + LOOK_EVERY + 3.6)
    assert after == pytest.approx(RATE * 3, abs=2 * EACH)


def test_a_store_that_cannot_be_asked_leaves_the_share_as_it_was(
    station: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished = Spans.unfinished

    def broken(self: Spans, *arguments: Any) -> Any:
        if station.sent:
            raise StoreFailed("the store failed: database is locked")
        return unfinished(self, *arguments)

    monkeypatch.setattr(Spans, "unfinished", broken)
    station.vip.put(people(*users(0, 501)))
    (delivered,) = station.deliveries().lane(station.to[0], Lane.INCREMENTAL, station.stop)
    assert delivered.outcome == "completed"
    assert station.between(0, 4.1) == pytest.approx(500, abs=EACH)
