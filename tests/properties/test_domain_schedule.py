from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from audience_sync.domain.schedule import Every, parse_duration, parse_every

SECONDS = st.integers(1, 3660 * 86_400)
START = datetime(2026, 1, 31, tzinfo=UTC)


def written(seconds: int) -> str:
    """``93784`` → ``1d2h3m4s``, leaving out what is zero."""
    text = ""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        text += f"{count}{unit}" if count else ""
    return text


@given(SECONDS)
def test_a_duration_is_read_back(seconds: int) -> None:
    assert parse_duration(written(seconds)) == timedelta(seconds=seconds)


@given(st.text() | st.text(alphabet="0129smhdw. -", max_size=14))
def test_any_text_is_a_duration_within_bounds_or_a_value_error(text: str) -> None:
    try:
        duration = parse_duration(text)
    except ValueError:
        return
    assert timedelta() < duration <= timedelta(days=3660)


@given(SECONDS, SECONDS, st.floats(0, 1, exclude_max=True))
def test_the_next_time_lies_within_the_range(a: int, b: int, draw: float) -> None:
    shortest, longest = sorted([a, b])
    every = parse_every(f"{written(shortest)}..{written(longest)}")
    assert every == Every(timedelta(seconds=shortest), timedelta(seconds=longest))
    wait = every.next_after(START, draw) - START
    assert every.shortest <= wait <= every.longest
