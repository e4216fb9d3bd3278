from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from hypothesis import given
from hypothesis import strategies as st

from audience_sync.domain.retry import (
    LONGEST_RETRY_AFTER,
    MAX_BACKOFF,
    Answer,
    backoff,
    classify,
    retry_after,
)

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
PIECES = st.sampled_from(
    [
        "Sat,",
        "31",
        "Jan",
        "2026",
        "9999",
        "0001",
        "12:00:00",
        "25:61:61",
        "GMT",
        "+2359",
        "-9999",
        "-",
    ]
)
HEADERS = (
    st.text()
    | st.from_regex(r"\A-?\d{1,400}\Z")
    | st.lists(PIECES, max_size=7).map(" ".join)
    | st.datetimes().map(str)
)


@given(HEADERS)
def test_any_header_is_understood_or_ignored(text: str) -> None:
    seconds = retry_after(text, NOW)
    assert seconds is None or 0.0 <= seconds <= LONGEST_RETRY_AFTER


@given(st.integers(-(10**6), 10**6))
def test_seconds_and_dates_say_the_same(seconds: int) -> None:
    date = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    wanted = min(max(float(seconds), 0.0), LONGEST_RETRY_AFTER)
    assert retry_after(str(seconds), NOW) == wanted
    assert retry_after(date, NOW) == wanted


@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_backoff_stays_within_its_bounds(attempt: int, draw: float) -> None:
    assert 0.05 <= backoff(attempt, draw) <= MAX_BACKOFF
    assert backoff(attempt, draw) <= backoff(attempt + 1, draw)


@given(st.integers(100, 599))
def test_only_2xx_is_accepted(status: int) -> None:
    assert (classify(status) is Answer.OK) is (200 <= status <= 299)
