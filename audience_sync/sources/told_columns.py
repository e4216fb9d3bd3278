"""A source whose columns are looked at before anything is read: can they be told?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from audience_sync.errors import SourceRefused
from audience_sync.pipeline.ports.reading import Source

USER_ID = "user_id"

Refuses = Callable[[Sequence[str]], Sequence[str]]
"""Why a destination cannot be told of some of the columns; empty: it can."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToldColumns:
    """A ``Source``. ``refuses``: by destination."""

    source: Source
    refuses: Mapping[str, Refuses]

    @contextmanager
    def read(self, query: str, cycle_time: datetime) -> Iterator[pa.RecordBatchReader]:
        """Raises SourceRefused too where a destination cannot be told of a column."""
        with self.source.read(query, cycle_time) as rows:
            names = [name for name in rows.schema.names if name.lower() != USER_ID]
            for destination, refuses in self.refuses.items():
                if why := refuses(names):
                    raise SourceRefused(
                        f"{destination} cannot be told of it: {'; '.join(why)}",
                        hint='rename in the query, such as "Full Name" AS full_name',
                    )
            yield rows
