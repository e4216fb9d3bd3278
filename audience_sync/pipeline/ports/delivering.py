"""What a delivery run needs of the store."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from audience_sync.domain.audience import AudienceKey, Kind, Seq, Tell
from audience_sync.domain.change import Change
from audience_sync.domain.guard import Limits
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Books, Span, SpanKind, Tally
from audience_sync.pipeline.ports.leases import Lease


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

    def under_way(self, destination: str, lane: Lane) -> Collection[AudienceKey]:
        """Audiences of which a span is open; quicker to say than all of the spans."""

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

    def milestones(self, span: Span, most: int) -> list[str]:
        """Users about equally far from each other in the walk beyond its position, if it is long;
        at most so many."""

    def advance(self, span: Span, books: Books, tally: Tally, lease: Lease) -> Span:
        """Move the position over handled members and keep the refusals, in one transaction."""

    def complete(self, span: Span, lease: Lease) -> None: ...

    def wanted(self, span: Span) -> bool:
        """Whether an open span should go on: no person has ordered otherwise meanwhile."""

    def superseded(self, destination: str, lane: Lane) -> list[Span]:
        """Unfinished spans in whose place everybody is to be told anew."""

    def abandon(self, span: Span, lease: Lease) -> None:
        """End a span where it is; the next one tells everybody."""


class Quotas(Protocol):
    """What of each destination's quota is used, by day and lane. Consumed by a delivery run."""

    def used(self, destination: str, day: date) -> Mapping[Lane, int]: ...

    def reserve(
        self,
        destination: str,
        lane: Lane,
        day: date,
        amount: int,
        *,
        quota: int,
        reserve: float,
        lease: Lease,
    ) -> int:
        """Write down that the lane uses up to ``amount`` more of the day; how much it may.

        It counts as used from now on, whatever becomes of the process.
        """

    def give_back(self, destination: str, lane: Lane, day: date, amount: int, lease: Lease) -> None:
        """``amount`` of what was reserved was not sent."""
