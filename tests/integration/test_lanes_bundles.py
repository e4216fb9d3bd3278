"""A destination that takes several audiences of a member in one request (P2, P3, P5)."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import pytest

from audience_sync.domain.span import Span
from audience_sync.errors import BadCalls, RetryLater, StoreFailed
from tests.fakes.destination import FakeDestination
from tests.fakes.snapshot_log import Log, people, scalar
from tests.integration.test_lanes import OLD, VIP, Station, users


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    to = FakeDestination(bundles=True, max_calls=1, concurrency=3)
    made = Station(path=tmp_path / "state.db", to=[to])
    yield made
    made.database.close()


@pytest.fixture
def to(station: Station) -> FakeDestination:
    return station.to[0]


def told(to: FakeDestination) -> dict[tuple[str, str], object]:
    """What was said last of each user and audience."""
    last: dict[tuple[str, str], object] = {}
    for member in to.accepted:
        for body in member.bodies:
            call = orjson.loads(body)
            key = call["context"]["personas"]["computation_key"]
            last[member.user_id, key] = call["traits"][key]
    return last


def wanted(station: Station) -> dict[tuple[str, str], object]:
    return {
        (user_id, str(log.key)): user_id in log.kept[log.seq]
        for log in (station.vip, station.old)
        for user_id in set().union(*log.kept.values())
    }


def test_a_member_of_two_audiences_is_asked_for_once(station: Station, to: FakeDestination) -> None:
    station.vip.put(people(*users(0, 40)))
    station.old.put(people(*users(20, 60)))
    delivered = station.run()
    assert [d.outcome for d in delivered] == ["completed", "completed"]
    assert [d.accepted for d in delivered] == [40, 40]
    assert len(to.sent) == len(set(to.sent)) == 60
    assert sorted(d.saved for d in delivered) == [0, 20], "80 would have gone one by one"
    assert told(to) == wanted(station)
    assert station.run() == []


def test_each_has_its_own_position_and_its_own_refusals(
    station: Station, to: FakeDestination
) -> None:
    station.vip.put(people(*users(0, 40)))
    station.old.put(people(*users(20, 60)))
    to.refused = {"u00005", "u00030"}
    by_audience = {d.span.audience: d for d in station.run()}
    assert (by_audience[VIP].accepted, by_audience[VIP].rejected) == (38, 2)
    assert (by_audience[OLD].accepted, by_audience[OLD].rejected) == (39, 1)
    assert sum(d.saved for d in by_audience.values()) == 19, "one of the 20 was not told"
    assert by_audience[VIP].span.position == "u00039"
    assert by_audience[OLD].span.position == "u00059"


def test_who_is_skipped_is_no_rejection_and_is_told_when_the_row_changes(
    station: Station, to: FakeDestination
) -> None:
    station.vip.put(people(*users(0, 10)))
    to.refused, to.skips = {"u00003"}, True
    (delivered,) = station.run()
    assert (delivered.accepted, delivered.rejected, delivered.skipped) == (9, 0, 1)
    to.refused = ()
    mended = people(*users(0, 10)) | {"u00003": {"email": "new@example.com"}}
    station.vip.put(mended)
    (again,) = station.run()
    assert (again.accepted, again.skipped) == (1, 0)
    assert told(to) == wanted(station)


def test_one_that_is_paused_meanwhile_stops_no_other(station: Station, to: FakeDestination) -> None:
    station.vip.put(people(*users(0, 40)))
    station.old.put(people(*users(0, 80)))
    with station.database.write() as connection:
        connection.exec_driver_sql("UPDATE audience SET paused_at = NULL")

    def pause(span: Span) -> None:
        if span.audience == OLD and span.books.handled > 10:
            with station.database.write() as connection:
                connection.exec_driver_sql(
                    f"UPDATE audience SET paused_at = '2026-01-31 00:00:00' WHERE key = '{OLD}'"
                )

    station.progress = pause
    outcomes = {d.span.audience: d.outcome for d in station.run()}
    assert outcomes == {VIP: "completed", OLD: "stopped"}
    assert {user for user, key in told(to) if key == VIP} == set(users(0, 40))


@pytest.mark.parametrize("seed", range(4))
def test_kills_and_faults_lose_nothing_and_repeat_little(
    station: Station, to: FakeDestination, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(seed)
    left = [0]
    advance = type(station.spans).advance

    def killed(*arguments: object, **named: object) -> Span:
        left[0] -= 1
        if left[0] < 0:
            raise StoreFailed("killed")
        return advance(*arguments, **named)  # type: ignore[arg-type]

    def answer(user_ids: Sequence[str]) -> None:
        if draw.random() < 0.02:
            raise RetryLater("no complete answer", after=0.001)
        if "u00007" in user_ids:
            raise BadCalls("request refused (400)")

    monkeypatch.setattr(type(station.spans), "advance", killed)
    to.answer = answer
    for log in (station.vip, station.old):
        log.put(people(*users(0, 60)))
    for _ in range(6):
        for log in (station.vip, station.old):
            _change(log, draw)
        left[0] = draw.randrange(60)
        station.run()
    left[0] = 10_000
    while station.run():
        pass
    expected = {at: value for at, value in wanted(station).items() if at[0] != "u00007"}
    assert {at: value for at, value in told(to).items() if at in expected} == {
        at: value for at, value in expected.items() if at in told(to)
    }
    missing = {at for at, is_member in expected.items() if at not in told(to) and is_member}
    assert not missing
    assert all(len(bodies) == 1 for bodies in to.bodies().values())
    query = "SELECT count(*) FROM span WHERE total <> accepted + rejected + skipped"
    assert scalar(station.database, query) == 0


def _change(log: Log, draw: random.Random) -> None:
    keep = [user for user in users(0, 60) if draw.random() < 0.7]
    log.put(people(*keep))
