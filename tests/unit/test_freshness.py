"""How old data may be, and what counts as a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta, timezone

import pyarrow as pa
import pytest

from audience_sync.errors import SourceFailed, SourceRefused
from audience_sync.sources.freshness import as_time, check_fresh, newest_of, spoken

NOW = datetime(2026, 2, 1, 12, tzinfo=UTC)
SIX_HOURS = timedelta(hours=6)


def test_just_old_enough_is_fresh() -> None:
    check_fresh(NOW - SIX_HOURS, NOW, SIX_HOURS)
    check_fresh(NOW + SIX_HOURS, NOW, SIX_HOURS)
    with pytest.raises(SourceFailed) as caught:
        check_fresh(NOW - SIX_HOURS - timedelta(minutes=30), NOW, SIX_HOURS)
    assert str(caught.value) == (
        "stale: the newest data is of 2026-02-01 05:30 UTC, 6.5 h before this run's time "
        "(freshness.max_age is 6 h)"
    )
    assert not isinstance(caught.value, SourceRefused)


def test_no_time_is_stale() -> None:
    with pytest.raises(SourceFailed, match="stale: the freshness query gives no time"):
        check_fresh(None, NOW, SIX_HOURS)


@pytest.mark.parametrize(
    "value",
    [
        NOW,
        NOW.replace(tzinfo=None),
        NOW.astimezone(timezone(timedelta(hours=5, minutes=30))),
        "2026-02-01 12:00:00",
        "2026-02-01T12:00:00Z",
        " 2026-02-01 13:00+01:00 ",
        "20260201T120000",
    ],
)
def test_what_is_a_time(value: object) -> None:
    assert as_time(value) == NOW


def test_a_date_is_its_midnight() -> None:
    assert as_time(date(2026, 2, 1)) == as_time("2026-02-01") == datetime(2026, 2, 1, tzinfo=UTC)


@pytest.mark.parametrize("value", [1_769_947_200, 1.5, True, "jane.doe", "", b"2026-02-01", [NOW]])
def test_what_is_no_time(value: object) -> None:
    with pytest.raises(SourceRefused) as caught:
        as_time(value)
    assert "jane" not in str(caught.value)


def test_one_row_of_one_column() -> None:
    def read(table: pa.Table) -> datetime | None:
        @contextmanager
        def opened() -> Iterator[pa.RecordBatchReader]:
            yield table.to_reader(max_chunksize=1)

        return newest_of(opened)

    assert read(pa.table({"t": [NOW]})) == NOW
    assert read(pa.table({"t": pa.array([None], pa.timestamp("us"))})) is None
    assert read(pa.table({"t": pa.array([], pa.timestamp("us"))})) is None
    with pytest.raises(SourceRefused, match="several rows"):
        read(pa.table({"t": [NOW, NOW]}))
    with pytest.raises(SourceRefused, match="2 columns"):
        read(pa.table({"t": [NOW], "u": [NOW]}))


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(days=3), "3 days"),
        (timedelta(days=1), "24 h"),
        (timedelta(hours=2), "2 h"),
        (timedelta(minutes=90), "90 min"),
        (timedelta(hours=42, minutes=12), "42.2 h"),
        (timedelta(seconds=61), "61 s"),
        (timedelta(seconds=1), "1 s"),
    ],
)
def test_spans_as_people_say_them(span: timedelta, words: str) -> None:
    assert spoken(span) == words
