"""When audiences that are walked together will be told, against the days that a sandbox took."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

import pytest

from audience_sync.domain.audience import Row
from audience_sync.domain.span import SpanState
from audience_sync.pipeline import amount_left
from audience_sync.pipeline.delivered import Delivered
from audience_sync.store import migrate
from audience_sync.store.engine import Database
from tests.fakes.crisp import Crisp, crisp_sandbox
from tests.fakes.crisp_station import CrispStation

DAY = timedelta(days=1)
QUOTA = 50
"""A day; 40 of it for first deliveries."""


@pytest.fixture
def crisp() -> Iterator[Crisp]:
    with crisp_sandbox() as running:
        yield running


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'state.db'}")
    migrate.upgrade(made)
    yield made
    made.close()


def station(database: Database, crisp: Crisp, **other: object) -> CrispStation:
    return CrispStation(
        database=database,
        crisp=crisp,
        other={"bulk": False, "quota": QUOTA, **other},
        rows_per_chunk=20,
    )


def users(first: int, last: int) -> dict[str, Row]:
    return {f"u{n:04}": {"email": f"u{n:04}@example.com"} for n in range(first, last)}


def day(made: CrispStation) -> list[Delivered]:
    """One run early in the morning, then the next day."""
    done = made.run()
    made.clock.now = made.clock.now.replace(hour=0, minute=5) + DAY
    return done


def days(made: CrispStation) -> tuple[list[date], date]:
    """On which day each run said that all is told, and when it was; all audiences say the same."""
    said: list[date] = []
    while True:
        now, done = made.clock.now, day(made)
        if all(one.outcome == "completed" for one in done):
            return said, now.date()
        times = {one.done_at for one in done if one.span.state is SpanState.OPEN}
        assert len(times) == 1, "they are done together"
        at = times.pop()
        assert at is not None
        said.append(at.date())


def late(said: Sequence[date], told: date) -> list[int]:
    """By how many days each was wrong; negative: said too early."""
    return [(one - told).days for one in said]


def test_of_three_audiences_whose_members_are_the_same_in_part(
    database: Database, crisp: Crisp
) -> None:
    for number in range(0, 150, 3):
        crisp.add(f"u{number:04}@example.com")
    made = station(database, crisp)
    for key, (first, last) in {"vip": (0, 100), "loyal": (50, 150), "old": (25, 125)}.items():
        made.log(key).put(users(first, last))
    said, told = days(made)
    assert len(said) >= 5
    assert set(late(said, told)) == {0}


def test_of_one_that_came_later(database: Database, crisp: Crisp) -> None:
    """Its members before the position of the other are told alone."""
    made = station(database, crisp)
    made.log("vip").put(users(0, 100))
    for _ in range(3):
        day(made)
    made.log("loyal").put(users(0, 100))
    said, told = days(made)
    assert len(said) >= 3
    assert set(late(said, told)) == {0}


def test_an_event_is_a_request_for_each_audience(database: Database, crisp: Crisp) -> None:
    made = station(database, crisp, with_track=True)
    for key in ("vip", "loyal"):
        made.log(key).put(users(0, 40))
    said, told = days(made)
    assert set(late(said, told)) == {0}


@pytest.mark.parametrize("seed", range(3))
def test_of_many_some_are_counted(
    database: Database, crisp: Crisp, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in one audience, few of the first and most of the last users in another."""
    monkeypatch.setattr(amount_left, "LOOKED_AT", 90)
    draw = random.Random(seed)
    made = station(database, crisp)
    everybody = users(0, 200)
    made.log("vip").put(everybody)
    made.log("loyal").put({u: row for n, (u, row) in enumerate(everybody.items()) if _in(n, draw)})
    made.log("old").put(users(150, 250))
    said, told = days(made)
    assert max(map(abs, late(said, told))) <= 2, "13 days in all"


def _in(number: int, draw: random.Random) -> bool:
    return draw.random() < number / 200
