"""Cron as Unix means it, and its wall clock when the clock changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest

from audience_sync.config.cadence import parse_cadence
from audience_sync.domain.schedule import Every

BERLIN = ZoneInfo("Europe/Berlin")
SUNDAY = datetime(2026, 3, 1, tzinfo=UTC)


def fires(text: str, start: datetime, count: int, timezone: tzinfo = UTC) -> list[datetime]:
    cadence = parse_cadence(text, timezone)
    times = []
    for _ in range(count):
        start = cadence.next_after(start, 0.5)
        times.append(start)
    return times


def local(timezone: tzinfo, times: list[datetime]) -> list[str]:
    return [time.astimezone(timezone).strftime("%d %H:%M") for time in times]


@pytest.mark.parametrize("text", ["3h", " 3 h ", "2h..3h", "2h .. 3h"])
def test_durations(text: str) -> None:
    longest = timedelta(hours=3)
    shortest = timedelta(hours=2) if ".." in text else longest
    assert parse_cadence(text, UTC) == Every(shortest, longest)


@pytest.mark.parametrize(
    ("weekday", "expected"),
    [
        ("0", ["sun"]),
        ("7", ["sun"]),
        ("1", ["mon"]),
        ("6", ["sat"]),
        ("sun", ["sun"]),
        ("MON", ["mon"]),
        ("1-5", ["mon", "tue", "wed", "thu", "fri"]),
        ("5-7", ["fri", "sat", "sun"]),
        ("0-2", ["mon", "tue", "sun"]),
        ("sat-mon", ["mon", "sat", "sun"]),
        ("mon-fri/2", ["mon", "wed", "fri"]),
        ("*/2", ["tue", "thu", "sat", "sun"]),
        ("0,3,sat", ["wed", "sat", "sun"]),
        ("*", ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]),
    ],
)
def test_weekdays_are_counted_from_sunday(weekday: str, expected: list[str]) -> None:
    week = fires(f"0 12 * * {weekday}", SUNDAY + timedelta(days=1), len(expected))
    assert [time.strftime("%a").lower() for time in week] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 */3 * * *", ["01 03:00", "01 06:00", "01 09:00"]),
        ("5,35 8-9 * * *", ["01 08:05", "01 08:35", "01 09:05"]),
        ("0 0 13 * 5", ["06 00:00", "13 00:00", "20 00:00"]),  # either day is enough
        ("0 0 */9 * 2", ["10 00:00", "28 00:00", "19 00:00"]),  # "*/9" restricts no day: both
        ("0 0 1 jan,JUN *", ["01 00:00", "01 00:00", "01 00:00"]),
        ("0 0 29 2 *", ["29 00:00", "29 00:00", "29 00:00"]),
    ],
)
def test_cron(text: str, expected: list[str]) -> None:
    assert local(UTC, fires(text, SUNDAY, 3)) == expected


def test_the_next_time_is_later_than_the_cycle() -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert fires("0 12 * * *", noon, 1) == [noon + timedelta(days=1)]
    assert fires("0 12 * * *", noon - timedelta(microseconds=1), 1) == [noon]


def test_spring_a_wall_time_that_is_skipped_comes_later_on_the_same_day() -> None:
    start = datetime(2026, 3, 28, 12, tzinfo=UTC)
    times = local(BERLIN, fires("30 2 * * *", start, 3, BERLIN))
    assert times == ["29 03:30", "30 02:30", "31 02:30"]


def test_autumn_a_wall_time_that_comes_twice_happens_once() -> None:
    start = datetime(2026, 10, 24, 12, tzinfo=UTC)
    times = fires("30 2 * * *", start, 2, BERLIN)
    assert times == [
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
        datetime(2026, 10, 26, 1, 30, tzinfo=UTC),
    ]
    between = datetime(2026, 10, 25, 1, 15, tzinfo=UTC)  # the second 02:15
    assert fires("30 2 * * *", between, 1, BERLIN) == times[1:]


@pytest.mark.parametrize("day", ["2026-03-28", "2026-10-24"])
def test_what_runs_every_hour_runs_every_hour_when_the_clock_changes(day: str) -> None:
    start = datetime.fromisoformat(day + "T22:00Z")
    times = fires("*/20 * * * *", start, 24, BERLIN)
    assert times == [start + timedelta(minutes=20 * n) for n in range(1, 25)]


def test_a_clock_that_is_changed_by_half_an_hour_adds_no_time() -> None:
    lord_howe = ZoneInfo("Australia/Lord_Howe")  # 2:00 became 2:30
    start = datetime(2026, 10, 3, 14, 45, tzinfo=UTC)
    times = local(lord_howe, fires("10 * * * *", start, 2, lord_howe))
    assert times == ["04 02:40", "04 03:10"]


def test_equal_lines_are_one_cadence() -> None:
    assert parse_cadence("0 */3  * * *", UTC) == parse_cadence("0 */3 * * *", UTC)
    assert parse_cadence("0 */3 * * *", UTC) != parse_cadence("0 */3 * * *", BERLIN)
    assert hash(parse_cadence("0 * * * *", UTC)) == hash(parse_cadence("0 * * * *", UTC))


@pytest.mark.parametrize(
    "text",
    [
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "0 24 * * *",
        "0 0 0 * *",
        "0 0 * 13 *",
        "0 0 * * 8",
        "0 0 * * mon#2",
        "0 0 * * monday",
        "0 0 * * */0",
        "0 0 last * *",
        "0 0 * foo *",
        "*/0 * * * *",
        "5-1 * * * *",
        "0 0 30 2 *",
        "0 0 31 4,6 *",
        "0 0 ٣ * *",
        ", , , , ,",
        "",
        "3",
        "3h..",
    ],
)
def test_what_is_no_cadence(text: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        parse_cadence(text, UTC)
