from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from audience_sync.domain.schedule import Every, is_due, parse_duration, parse_every

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90s", timedelta(seconds=90)),
        ("90m", timedelta(minutes=90)),
        ("3h", timedelta(hours=3)),
        ("1h30m", timedelta(minutes=90)),
        (" 1h 30m ", timedelta(minutes=90)),
        ("30d", timedelta(days=30)),
        ("2w", timedelta(weeks=2)),
        ("3660d", timedelta(days=3660)),
    ],
)
def test_parse_duration(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a number and a unit"),
        ("3", "a number and a unit"),
        ("h", "a number and a unit"),
        ("-3h", "a number and a unit"),
        ("3 hours", "a number and a unit"),
        ("1.5h", "a number and a unit"),
        ("3h\n2", "a number and a unit"),
        ("0s", "above zero"),
        ("0h0m", "above zero"),
        ("3661d", "at most ten years"),
        ("9999999999w", "at most ten years"),
        ("999999999w", "at most ten years"),
        ("9" * 5_000 + "s", "at most ten years"),
    ],
)
def test_what_is_no_duration_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("3h", Every(3 * HOUR, 3 * HOUR)),
        ("2h..3h", Every(2 * HOUR, 3 * HOUR)),
        ("90m .. 2h", Every(1.5 * HOUR, 2 * HOUR)),
        ("2h..2h", Every(2 * HOUR, 2 * HOUR)),
    ],
)
def test_parse_every(text: str, every: Every) -> None:
    assert parse_every(text) == every


@pytest.mark.parametrize("text", ["3h..2h", "..3h", "2h..", "2h..3h..4h", "2h-3h", "0s..3h"])
def test_what_is_no_cadence_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"comes first|a number and a unit|above zero"):
        parse_every(text)


@pytest.mark.parametrize(("draw", "hours"), [(0.0, 2), (0.25, 3), (0.5, 4)])
def test_the_next_time_is_drawn_from_the_range(draw: float, hours: int) -> None:
    assert parse_every("2h..6h").next_after(NOON, draw) == NOON + hours * HOUR


@pytest.mark.parametrize(
    ("last", "due", "now_due"),
    [
        (None, None, True),
        (None, NOON + HOUR, True),
        (NOON - HOUR, None, True),
        (NOON - HOUR, NOON, True),
        (NOON - 9 * HOUR, NOON - 8 * HOUR, True),
        (NOON - HOUR, NOON + timedelta(microseconds=999_999), True),
        (NOON - HOUR, NOON + timedelta(seconds=1), False),
        (NOON, NOON + HOUR, False),
        (NOON + HOUR, NOON + 2 * HOUR, True),
    ],
    ids=[
        "never captured",
        "never captured, though planned",
        "captured, nothing planned",
        "due now",
        "missed",
        "due within this second, to which cycle times are cut",
        "not yet",
        "just captured",
        "captured in the future: the clock went back",
    ],
)
def test_is_due(last: datetime | None, due: datetime | None, now_due: bool) -> None:
    assert is_due(NOON, last=last, due=due, clock=NOON) is now_due


def test_nobody_is_due_for_the_time_that_was_captured_last() -> None:
    """The clock went back since this cycle began, and another one was quicker."""
    last, due = NOON, NOON + HOUR
    assert not is_due(NOON, last=last, due=due, clock=NOON - 2 * HOUR)
    assert is_due(NOON - 2 * HOUR, last=last, due=due, clock=NOON - 2 * HOUR)
