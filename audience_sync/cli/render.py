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
    """``41 s``, ``2 min``, ``6 h``, ``37 days``; ``1 s`` is the shortest."""
    for size, unit in ((DAY, "days"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= 2 * size:
            return f"{round(seconds / size):,} {unit}"
    return f"{max(round(seconds), 1)} s"


def day(time: datetime, now: datetime) -> str:
    """``22 Nov``, with the year if it is another one."""
    time, now = time.astimezone(UTC), now.astimezone(UTC)
    return f"{time.day} {time:%b}" + (f" {time.year}" if time.year != now.year else "")


def clock_time(time: datetime, now: datetime) -> str:
    """``06:00 UTC`` today, ``2 Oct 06:00 UTC`` on another day."""
    time, now = time.astimezone(UTC), now.astimezone(UTC)
    day = "" if time.date() == now.date() else f"{time.day} {time:%b} "
    if time.year != now.year:
        day = f"{time.day} {time:%b} {time.year} "
    return f"{day}{time:%H:%M} UTC"


def ago(time: datetime, now: datetime) -> str:
    """``2 h ago``; a time that has yet to come is ``now``."""
    seconds = (now - time).total_seconds()
    return f"{duration(seconds)} ago" if seconds >= 1 else "now"


def left(text: str, width: int = WIDTH) -> str:
    return text.ljust(width - 1) + " "


def table(rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = ()) -> list[str]:
    """Columns aligned, two spaces between; to the left, those in ``numbers`` to the right."""
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_aligned(row, widths, numbers)).rstrip() for row in rows]


def _aligned(row: Sequence[str], widths: Sequence[int], numbers: Sequence[int]) -> list[str]:
    cells = enumerate(zip(row, widths, strict=True))
    return [cell.rjust(w) if i in numbers else cell.ljust(w) for i, (cell, w) in cells]


def to_json(value: Any) -> str:
    """One line; times as ``2026-10-07T06:00:00Z``, dataclasses as objects."""
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)
