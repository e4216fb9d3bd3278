"""Spans: one delivery of one audience to one destination, and the books it keeps (P2, P3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeVar

from audience_sync.domain.audience import AudienceKey, Kind, Seq, Tell
from audience_sync.domain.contact import Contact
from audience_sync.domain.quota import Lane

Result = TypeVar("Result")
"""What became of a batch."""


class SpanKind(StrEnum):
    INITIAL = "initial"
    INCREMENTAL = "incremental"
    RESYNC = "resync"


class SpanState(StrEnum):
    HELD = "held"
    OPEN = "open"
    COMPLETED = "completed"
    ABANDONED = "abandoned"


@dataclass(frozen=True, kw_only=True, slots=True)
class Books:
    """Members of a span by what became of them; adds up at every commit."""

    total: int
    accepted: int = 0
    rejected: int = 0
    skipped: int = 0
    rejected_before: int = 0
    """Members of this span that are told again because an earlier one was rejected."""

    @property
    def handled(self) -> int:
        return self.accepted + self.rejected + self.skipped

    @property
    def remaining(self) -> int:
        return self.total - self.handled

    def add(self, tally: Tally) -> Books:
        return replace(
            self,
            accepted=self.accepted + tally.accepted,
            rejected=self.rejected + len(tally.rejected),
            skipped=self.skipped + len(tally.skipped),
        )

    @property
    def max_rejected(self) -> int:
        """More rejections than this are a broken set-up, not bad members (P19).

        That those are rejected again who were before says nothing of the set-up.
        """
        return max(100, self.total // 100) + self.rejected_before


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Pinned to ``(from_seq, to_seq)``; ``position`` is the last handled ``user_id``."""

    id: int
    audience: AudienceKey
    audience_kind: Kind
    destination: str
    number: int
    lane: Lane
    kind: SpanKind
    state: SpanState
    from_seq: Seq
    to_seq: Seq
    position: str | None
    books: Books
    captured_at: datetime
    """Cycle time of the snapshot ``to_seq``: the ``timestamp`` of every call."""
    plan_id: str
    """The plan that made ``to_seq``."""
    tell: frozenset[Tell]
    """As it was configured when the span was opened, so that an edit leaves its books true."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """One member that was not told, with the reason.

    ``skipped``: nothing is wrong with the member, who just cannot be told yet.
    """

    user_id: str
    reason: str
    skipped: bool = False


@dataclass(slots=True)
class Tally:
    """What became of the members of one batch, and the last of them."""

    last_user_id: str
    accepted: int = 0
    rejected: list[Refusal] = field(default_factory=list)
    skipped: list[Refusal] = field(default_factory=list)
    contacts: list[Contact] = field(default_factory=list)
    """Learned on the way."""
    saved: int = 0
    """Requests fewer than one for each member and audience."""

    def refuse(self, refusals: Iterable[Refusal]) -> None:
        for refusal in refusals:
            (self.skipped if refusal.skipped else self.rejected).append(refusal)

    def absorb(self, later: Tally) -> None:
        """Take over a tally that follows directly."""
        self.last_user_id = later.last_user_id
        self.accepted += later.accepted
        self.rejected += later.rejected
        self.skipped += later.skipped
        self.contacts += later.contacts
        self.saved += later.saved


class Window(Generic[Result]):
    """Batches that were started but not yet committed, in order.

    At most ``size`` at a time, counted from the committed position, so a kill repeats at most
    these. ``ripe`` hands out results over a contiguous prefix only.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._order: list[int] = []
        self._done: dict[int, Result] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._order)

    @property
    def full(self) -> bool:
        return len(self._order) >= self.size

    def start(self) -> int:
        number = self._next
        self._next += 1
        self._order.append(number)
        return number

    def finish(self, number: int, result: Result) -> None:
        self._done[number] = result

    def ripe(self) -> Iterator[Result]:
        while self._order and self._order[0] in self._done:
            yield self._done.pop(self._order.pop(0))
