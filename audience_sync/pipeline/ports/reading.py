"""What a capture needs of a source and of the engine that compares.

Arrow shapes (``user_id`` and text are UTF-8, never null unless said):

- *rows*: what a source reads: ``user_id`` of any type and the carried columns of any type.
- *members*: ``user_id string``, then each carried column as string, bool, int64 or float64
  (nullable); sorted by the UTF-8 bytes of ``user_id``, each once.
- *changes*: ``user_id string``, ``before bool``, ``after bool`` (was, is a member), then
  ``before.<column>`` and ``after.<column>``; sorted and unique likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import pyarrow as pa

from audience_sync.domain.audience import Columns, Kind
from audience_sync.domain.forgotten import REASON, Forgotten
from audience_sync.domain.guard import Counts

Batches = Iterable[pa.RecordBatch]


class Source(Protocol):
    def read(
        self, query: str, cycle_time: datetime
    ) -> AbstractContextManager[pa.RecordBatchReader]:
        """The rows of ``query``, with ``:now`` bound to ``cycle_time``; single-scan.

        A reader that ends without an error has given every row; one that cannot raises from
        its iteration. So a read that was cut short is never taken for a smaller audience.

        Raises:
            SourceRefused: query or data cannot be used; a person must look.
            SourceFailed: the read did not finish; the next cycle may.
            SourceReplaced: what it read was replaced as a whole; the same read may be begun anew.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Membership:
    """The members at one snapshot, as the store has them: a base, and changes since."""

    columns: Columns
    members: int
    base: Callable[[], Batches]
    changes: Sequence[Callable[[], Batches]] = ()
    """Oldest first. Each callable starts a new scan."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """Rows of a read that were not used, by reason; ``duplicates`` were used once.

    ``total`` is of the rows that could not be used.
    """

    rows: int
    by_reason: Mapping[str, int] = field(default_factory=dict)
    duplicates: int = 0

    @property
    def faults(self) -> Mapping[str, int]:
        """Without those of people who asked to be forgotten."""
        return {reason: count for reason, count in self.by_reason.items() if reason != REASON}

    @property
    def total(self) -> int:
        return sum(self.faults.values())


class Comparison(Protocol):
    """A source's rows against the previous membership. Usable until its context closes."""

    @property
    def columns(self) -> Columns: ...
    @property
    def counts(self) -> Counts: ...
    @property
    def refused(self) -> Refused: ...
    @property
    def digest(self) -> str:
        """Equal for equal change rows, whatever the order in which the source gave them."""

    def changes(self) -> Batches:
        """All *changes*, each call a new scan."""

    def members(self) -> Batches:
        """All *members* after the changes, each call a new scan."""


class Engine(Protocol):
    def compare(
        self,
        previous: Membership | None,
        rows: pa.RecordBatchReader,
        *,
        reserved: str,
        kind: Kind = Kind.AUDIENCE,
        forgotten: Forgotten | None = None,
    ) -> AbstractContextManager[Comparison]:
        """Compare ``rows`` with ``previous`` (``None``: there was no snapshot).

        Args:
            reserved: the trait key, which no carried column may have as its name.
            kind: a computed trait needs a column ``value``, with one value for each user; a user
                without a value is no member.
            forgotten: whose rows are left out, as if the source did not have them. They are not
                in ``previous``.

        Raises:
            SourceRefused: no ``user_id``, no ``value``, duplicate or unusable columns, or
                users with more than one value.
            SourceFailed: whatever the reader raised.
        """
