"""What the pipeline needs of the world, each port with the fewest methods its consumer calls.

Arrow shapes (``user_id`` and text are UTF-8, never null unless said):

- *rows*: what a source reads: ``user_id`` of any type and the carried columns of any type.
- *members*: ``user_id string``, then each carried column as string, bool, int64 or float64
  (nullable); sorted by the UTF-8 bytes of ``user_id``, each once.
- *changes*: ``user_id string``, ``before bool``, ``after bool`` (was, is a member), then
  ``before.<column>`` and ``after.<column>``; sorted and unique likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import pyarrow as pa

from audience_sync.domain.audience import AudienceKey, Columns, Kind, Seq, Tell
from audience_sync.domain.change import Change
from audience_sync.domain.forgotten import REASON, Forgotten
from audience_sync.domain.guard import Counts, Limits, Window
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Books, Refusal, Span, SpanKind, Tally

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A stored snapshot, current or held."""

    id: int
    audience: AudienceKey
    seq: Seq
    """For a held one: the number it will get when it is approved."""
    captured_at: datetime
    columns: Columns
    counts: Counts
    plan_id: str
    query_hash: str
    held_for: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Capture:
    """What one capture found, ready to be recorded."""

    audience: AudienceKey
    name: str
    kind: Kind
    cycle_time: datetime
    next_due: datetime
    from_seq: Seq
    columns: Columns
    counts: Counts
    refused: Refused
    plan_id: str
    query_hash: str
    held_for: tuple[str, ...] = ()


class Lease(Protocol):
    """The right to write for one name. Every transaction of the store checks its epoch."""

    name: str

    def remaining(self) -> float:
        """Seconds for which the lease surely holds; negative when it is over."""


class Leases(Protocol):
    def hold(self, name: str) -> AbstractContextManager[Lease]:
        """Raises LeaseTaken when another process holds ``name``."""


class Snapshots(Protocol):
    """Consumed by capture."""

    def current(self, audience: AudienceKey) -> Snapshot | None: ...

    def membership(self, audience: AudienceKey, seq: Seq) -> Membership: ...

    def forgotten(self) -> Forgotten | None:
        """Who asked to be forgotten by now; ``None``: nobody did."""

    def changed_since_base(self, audience: AudienceKey) -> tuple[int, int]:
        """Rows of changes since the newest base, and members of that base."""

    def window(self, audience: AudienceKey, cycle_time: datetime) -> Window: ...

    def unchanged(self, capture: Capture, lease: Lease, *, started_at: datetime) -> None:
        """Record a capture that found nothing new; held captures are discarded by it."""

    def stage(
        self, capture: Capture, *, changes: Batches | None, base: Batches | None, lease: Lease
    ) -> int:
        """Write chunks that nobody sees yet; the id to ``commit``."""

    def commit(self, staged: int, lease: Lease, *, started_at: datetime) -> Snapshot:
        """Make the staged chunks, their snapshot and their run visible at once.

        A capture with ``held_for`` becomes a held snapshot, any other the current one.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """An audience of which a destination has something to be told."""

    audience: AudienceKey
    kind: SpanKind
    told_seq: Seq | None
    """``None``: nothing was told yet."""
    to_seq: Seq
    members: int
    audience_kind: Kind = Kind.AUDIENCE

    @property
    def lane(self) -> Lane:
        """Whoever walks everybody does so in the initial lane."""
        return Lane.INCREMENTAL if self.kind is SpanKind.INCREMENTAL else Lane.INITIAL


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause:
    """Why nothing is sent to a destination."""

    reason: str
    since: datetime
    until: datetime | None
    """Nothing is sent before; ``None``: the next run may probe."""


class Pauses(Protocol):
    """Consumed by a delivery run."""

    def paused(self, name: str) -> Pause | None: ...

    def pause(self, name: str, reason: str, seconds: float, lease: Lease) -> None:
        """``seconds``: how long nothing may be sent; 0: until the next run."""

    def resume(self, name: str, lease: Lease) -> None: ...


class Spans(Protocol):
    """Consumed by a delivery run."""

    def waiting(self, destination: str, keys: Collection[AudienceKey]) -> list[Waiting]: ...

    def unfinished(self, destination: str, lane: Lane | None = None) -> list[Span]:
        """Open and held spans, oldest first."""

    def open(
        self,
        waiting: Waiting,
        destination: str,
        *,
        tell: Collection[Tell],
        limits: Limits,
        lease: Lease,
    ) -> Span | None:
        """Open a span pinned to the newest snapshot; a too large first delivery is held.

        ``None``: a capture came between; the next run opens it.
        """

    def changes(self, span: Span) -> Iterator[Change]:
        """What the span tells after its position, in ``user_id`` order, with nothing held open.

        A span from 0 walks all members of ``to_seq`` as entered. Members that an earlier span
        could not tell come again with their state at ``to_seq``.
        """

    def advance(self, span: Span, books: Books, tally: Tally, lease: Lease) -> Span:
        """Move the position over handled members and keep the refusals, in one transaction."""

    def complete(self, span: Span, lease: Lease) -> None: ...

    def wanted(self, span: Span) -> bool:
        """Whether an open span should go on: no person has ordered otherwise meanwhile."""

    def superseded(self, destination: str, lane: Lane) -> list[Span]:
        """Unfinished spans in whose place everybody is to be told anew."""

    def abandon(self, span: Span, lease: Lease) -> None:
        """End a span where it is; the next one tells everybody."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberCalls:
    """The calls of one member, encoded as they go over the wire, in the order of sending.

    They are accepted or refused together: books, rejections and positions count members.
    """

    user_id: str
    bodies: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanContext:
    """What is the same for every call of a span."""

    audience: AudienceKey
    kind: Kind
    span_number: int
    timestamp: datetime
    installation: str


class Sender(Protocol):
    """One worker's connection. Not shared between threads."""

    def send(self, members: Sequence[MemberCalls]) -> None:
        """Send all in one request (or one append); returning means all were accepted.

        Raises:
            BadCalls: the destination refused the request for its content (400, 413): the
                caller bisects; a single member is a rejection.
            RetryLater: nothing is known of the outcome, or it is known not to have happened.
            DestinationPaused: stop sending to this destination.
        """

    def close(self) -> None: ...


class Destination(Protocol):
    """Where calls go."""

    name: str
    fingerprint: str
    rate: float
    """Calls per second."""
    reserve: float
    concurrency: int
    """Requests in flight beyond the committed position, at most."""
    max_calls: int
    max_bytes: int
    """Limits of one request: calls, and bytes of their bodies together. The calls of one member
    are never split, so a member alone may pass them."""
    deadline: float
    """Seconds that one request may take in all."""

    def calls(self, change: Change, context: SpanContext) -> MemberCalls | Refusal:
        """Turn a change into calls, or say why the destination would refuse one of them."""

    def calls_per_change(self, change: Tell, kind: Kind) -> int:
        """How many calls a change of an audience or computed trait becomes, without making them."""

    def sender(self) -> Sender: ...
