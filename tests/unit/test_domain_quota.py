from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from audience_sync.domain.quota import (
    Lane,
    Pace,
    block_of,
    done_in,
    next_day,
    parse_quota,
    parse_rate,
    quota_left,
    share,
)
from tests.fakes.pace import left


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1000/s", 1000.0),
        ("1_000/s", 1000.0),
        (" 10 / second ", 10.0),
        ("600/min", 10.0),
        ("0.5/s", 0.5),
        ("3600/h", 1.0),
        ("1/hour", 1 / 3600),
    ],
)
def test_parse_rate(text: str, rate: float) -> None:
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize(
    "text", ["", "10", "/s", "10/", "10/day", "-1/s", "ten/s", "10/s/s", "1,5/s"]
)
def test_a_rate_without_a_number_and_a_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a number and a unit"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["0/s", "0.0/min"])
def test_a_rate_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="above zero"):
        parse_rate(text)


def test_the_reserve_is_kept_while_an_initial_span_is_open() -> None:
    assert share(Lane.INCREMENTAL, reserve=0.2, initial_open=True) == 0.2
    assert share(Lane.INITIAL, reserve=0.2, initial_open=True) == 0.8
    assert share(Lane.INCREMENTAL, reserve=0.2, initial_open=False) == 1.0


def test_a_full_bucket_goes_at_once_and_what_follows_waits_for_the_debt() -> None:
    pace = Pace(rate=10)
    assert left(pace, 10, 0.0) == 0.0
    assert left(pace, 25, 0.0) == 0.0
    assert left(pace, 1, 0.0) == pytest.approx(2.5)
    assert left(pace, 1, 1.0) == pytest.approx(1.6)


def test_a_long_pause_saves_up_one_second_and_no_more() -> None:
    pace = Pace(rate=10)
    left(pace, 10, 0.0)
    left(pace, 10, 3600.0)
    assert left(pace, 1, 3600.0) == 0.0
    assert left(pace, 1, 3600.0) == pytest.approx(0.1)


def test_a_429_halves_the_rate_and_empties_the_bucket() -> None:
    pace = Pace(rate=64)
    assert left(pace, 1, 0.0) == 0.0
    pace.slow_down()
    assert pace.current == 32
    assert left(pace, 32, 0.0) == 0.0
    assert left(pace, 1, 0.0) == pytest.approx(1.0)


def test_who_asks_after_the_rate_has_climbed_goes_after_those_who_already_wait() -> None:
    pace = Pace(rate=1)
    left(pace, 1, 0.0)
    for _ in range(6):
        pace.slow_down()
    waits = [left(pace, 10, 0.0), left(pace, 10, 0.0)]
    for _ in range(20):
        pace.climb()
    waits += [left(pace, 10, 0.0), left(pace, 10, 0.0)]
    assert waits == pytest.approx([0.0, 640.0, 1280.0, 1290.0])


def test_the_rate_never_falls_below_a_64th_and_climbs_back_to_the_configured_one() -> None:
    pace = Pace(rate=64)
    for _ in range(50):
        pace.slow_down()
    assert pace.current == 1
    climbed = []
    for _ in range(50):
        pace.climb()
        climbed.append(pace.current)
    assert climbed == sorted(climbed)
    assert climbed[0] == pytest.approx(1 + 64 * 0.05)
    assert climbed[-1] == 64


def test_a_share_that_falls_puts_off_those_who_wait_and_one_that_rises_nobody() -> None:
    pace = Pace(rate=100)
    first, second = pace.turn(200, 0.0), pace.turn(200, 0.0)
    assert (first.at, second.at) == (-1.0, 1.0)
    pace.change(20, 0.5)
    assert second.at == pytest.approx(0.5 + 0.5 * 5)
    assert left(pace, 1, 0.5) == pytest.approx(12.5)
    pace.change(100, 0.5)
    assert second.at == pytest.approx(3.0)
    assert pace.current == 100
    assert left(pace, 1, 0.5) == pytest.approx(12.5 + 1 / 20)


@pytest.mark.parametrize(
    ("text", "quota"), [("5000/day", 5000), ("1_000_000/day", 10**6), (" 5 / d ", 5)]
)
def test_parse_quota(text: str, quota: int) -> None:
    assert parse_quota(text) == quota


@pytest.mark.parametrize(
    "text", ["", "5000", "/day", "5000/", "5000/h", "0.5/day", "-1/day", "5,000/day", "5000/days"]
)
def test_a_quota_that_is_no_whole_number_a_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a whole number a day"):
        parse_quota(text)


def test_a_quota_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above zero"):
        parse_quota("0/day")


@pytest.mark.parametrize(
    ("initial", "incremental", "left"),
    [
        (0, 0, (4000, 5000)),
        (4000, 0, (0, 1000)),
        (4000, 300, (0, 700)),
        (1000, 2500, (1500, 1500)),
        (1000, 4000, (0, 0)),
        (0, 5000, (0, 0)),
        (5000, 5000, (0, 0)),
    ],
)
def test_the_lanes_of_a_day(initial: int, incremental: int, left: tuple[int, int]) -> None:
    used = {Lane.INITIAL: initial, Lane.INCREMENTAL: incremental}
    found = [quota_left(lane, quota=5000, reserve=0.2, used=used) for lane in Lane]
    assert tuple(found) == left


def test_blocks_are_one_per_cent_or_five_seconds_or_one_request() -> None:
    assert block_of(10, quota=5000, rate=1000) == 50
    assert block_of(500, quota=5000, rate=1000) == 500
    assert block_of(1, quota=10**9, rate=1000) == 5000


NOON = datetime(2026, 10, 7, 12, 0, tzinfo=UTC)


def test_the_next_day_begins_at_midnight_utc() -> None:
    assert next_day(NOON) == datetime(2026, 10, 8, tzinfo=UTC)
    assert next_day(datetime(2026, 10, 8, tzinfo=UTC)) == datetime(2026, 10, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("calls", "left", "expected"),
    [
        (0, 0, timedelta(0)),
        (100, 100, timedelta(seconds=10)),
        (101, 100, timedelta(hours=12, seconds=0.1)),
        (4000, 0, timedelta(hours=12, seconds=400)),
        (4001, 0, timedelta(hours=36, seconds=0.1)),
        (180_210, 0, timedelta(hours=12, days=45, seconds=21)),
    ],
)
def test_a_forecast_counts_the_quota(calls: int, left: int, expected: timedelta) -> None:
    assert done_in(calls, NOON, rate=10, per_day=4000, left=left) == expected


def test_a_forecast_without_a_quota_is_that_of_the_rate() -> None:
    assert done_in(100, NOON, rate=10) == timedelta(seconds=10)


def test_a_rate_that_gives_less_than_the_quota_in_a_day_counts() -> None:
    assert done_in(300, NOON, rate=0.001, per_day=4000, left=4000).days == 3
