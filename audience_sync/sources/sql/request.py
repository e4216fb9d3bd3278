"""What a reading process is asked, and how it says what went wrong: JSON, one line each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from audience_sync.errors import SourceFailed, SourceRefused
from audience_sync.sources.freshness import Freshness


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One query of one database. It holds secrets, so it goes through a pipe."""

    url: str = field(repr=False)
    connect_args: Mapping[str, Any] = field(repr=False)
    timeout: timedelta
    """For all of it, from connecting to the last row."""
    freshness: Freshness | None
    query: str
    cycle_time: datetime

    def to_line(self) -> bytes:
        fresh = self.freshness
        values = {
            "url": self.url,
            "connect_args": dict(self.connect_args),
            "timeout": self.timeout.total_seconds(),
            "max_age": fresh.max_age.total_seconds() if fresh else None,
            "freshness_query": fresh.query if fresh else None,
            "query": self.query,
            "cycle_time": self.cycle_time.isoformat(),
        }
        return json.dumps(values).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> Request:
        values = json.loads(line)
        max_age, query = values["max_age"], values["freshness_query"]
        return cls(
            url=values["url"],
            connect_args=values["connect_args"],
            timeout=timedelta(seconds=values["timeout"]),
            freshness=None
            if max_age is None
            else Freshness(max_age=timedelta(seconds=max_age), query=query),
            query=values["query"],
            cycle_time=datetime.fromisoformat(values["cycle_time"]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """The last word of a reading process: how many rows it gave, or why it could not.

    Without one, the process was cut off, and what it gave is not the whole.
    """

    rows: int = 0
    fault: str | None = None
    hint: str | None = None
    refused: bool = False

    @classmethod
    def of_error(cls, error: SourceFailed) -> Ending:
        refused = isinstance(error, SourceRefused)
        return cls(fault=str(error), hint=error.hint, refused=refused)

    def to_line(self) -> bytes:
        values = {
            "rows": self.rows,
            "fault": self.fault,
            "hint": self.hint,
            "refused": self.refused,
        }
        return json.dumps(values).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> Ending | None:
        return cls(**json.loads(line)) if line.endswith(b"\n") else None

    def error(self, place: str) -> SourceFailed:
        """What ``of_error`` was given, with ``place`` in front."""
        kind = SourceRefused if self.refused else SourceFailed
        return kind(f"{place}: {self.fault}", hint=self.hint)
