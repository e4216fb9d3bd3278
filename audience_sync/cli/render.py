"""Numbers, times and lines as a person reads them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

MINUTE, HOUR, DAY = 60, 3600, 86400
WIDTH = 12


def number(count: int) -> str:
    return f"{count:,}"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """``41 s``, ``2 min``, ``6 h``, ``37 days``."""
    if seconds < 1:
        return "under 1 s"
    for size, unit in ((DAY, "days"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= 2 * size:
            return f"{round(seconds / size):,} {unit}"
    return f"{round(seconds)} s"


def clock_time(time: datetime, now: datetime) -> str:
    """``06:00 UTC`` today, ``2 Oct 06:00 UTC`` on another day."""
    time, now = time.astimezone(UTC), now.astimezone(UTC)
    day = "" if time.date() == now.date() else f"{time.day} {time:%b} "
    if time.year != now.year:
        day = f"{time.day} {time:%b} {time.year} "
    return f"{day}{time:%H:%M} UTC"


def left(text: str, width: int = WIDTH) -> str:
    return text.ljust(width - 1) + " "


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns aligned, two spaces between; the first to the left, numbers as they come."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)
