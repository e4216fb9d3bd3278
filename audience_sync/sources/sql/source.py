"""Any database that SQLAlchemy reaches (port ``Source``).

Each read happens in a process of its own, which turns rows into Arrow while ours compares them,
and which can be ended when the time is over, whatever its driver is doing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from audience_sync.sources.freshness import Freshness
from audience_sync.sources.sql.process import reading
from audience_sync.sources.sql.request import Request


@dataclass(frozen=True, kw_only=True, slots=True)
class SqlSource:
    """``timeout``: of one read, from connecting to the last row."""

    name: str
    url: str = field(repr=False)
    connect_args: Mapping[str, Any] = field(repr=False)
    timeout: timedelta
    freshness: Freshness | None = None

    @contextmanager
    def read(self, query: str, cycle_time: datetime) -> Iterator[pa.RecordBatchReader]:
        """See ``Source.read``. All queries of a read see the data of one moment, where the
        database has such transactions.

        Raises:
            SourceRefused: the query, the settings or a value cannot be used.
            SourceFailed: the read did not finish, or the data is stale. Both also come from the
                reader's iteration.
        """
        request = Request(
            url=self.url,
            connect_args=self.connect_args,
            timeout=self.timeout,
            freshness=self.freshness,
            query=query,
            cycle_time=cycle_time,
        )
        with reading(request, self.name) as answer:
            rows = answer.rows()
            with closing(rows):
                yield rows
