"""Whether a source's data is fresh enough to say who has left."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import pyarrow as pa

from audience_sync.errors import SourceFailed, SourceRefused

UNITS = (("days", 86_400), ("h", 3600), ("min", 60), ("s", 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Freshness:
    """``query`` gives one time; without one, it is the age of the files that are read."""

    max_age: timedelta
    query: str | None = None


def check_fresh(newest: datetime | None, cycle_time: datetime, max_age: timedelta) -> None:
    """Raises SourceFailed when the newest data is older than ``max_age`` at ``cycle_time``."""
    if newest is None:
        raise SourceFailed(
            "stale: the freshness query gives no time", hint="was anything loaded at all?"
        )
    age = cycle_time - newest
    if age > max_age:
        raise SourceFailed(
            f"stale: the newest data is of {newest.astimezone(UTC):%Y-%m-%d %H:%M} UTC, "
            f"{spoken(age)} before this run's time (freshness.max_age is {spoken(max_age)})",
            hint="see why nothing newer was loaded; until then nobody enters or exits",
        )


def newest_of(
    read: Callable[[], AbstractContextManager[pa.RecordBatchReader]],
) -> datetime | None:
    """The one time that a freshness query gives; ``None`` for NULL, or when it gives no row.

    Raises:
        SourceRefused: it gives several rows or columns, or something else than a time.
    """
    with read() as reader:
        if len(reader.schema) != 1:
            raise SourceRefused(
                f"the freshness query gives {len(reader.schema)} columns, not one time",
                hint="SELECT max(loaded_at) FROM …",
            )
        found: list[object] = []
        for batch in reader:
            found += batch.column(0).slice(0, 2).to_pylist()
            if len(found) > 1:
                raise SourceRefused(
                    "the freshness query gives several rows, not one time",
                    hint="SELECT max(loaded_at) FROM …",
                )
    return as_time(found[0]) if found and found[0] is not None else None


def as_time(value: object) -> datetime:
    """A time or date of a database, or its ISO 8601 text; without a zone it is UTC.

    Raises:
        SourceRefused: it is something else.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise SourceRefused(
                "the freshness query gives a text that is no ISO 8601 time",
                hint="such as 2026-01-31 06:00:00",
            ) from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        kind = type(value).__name__
        raise SourceRefused(
            f"the freshness query gives a value of type {kind}, not a time",
            hint="turn it into a timestamp in the query",
        )
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def spoken(span: timedelta) -> str:
    """``9 h``, ``90 min``, ``3 days``: in the largest unit of which there are two."""
    seconds = span.total_seconds()
    name, size = next((u for u in UNITS if seconds >= 2 * u[1]), UNITS[-1])
    whole = seconds / size
    return f"{whole:.0f} {name}" if whole == round(whole) else f"{whole:.1f} {name}"
