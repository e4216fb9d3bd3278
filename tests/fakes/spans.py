"""Spans in memory, with a check at every commit: what a walk asks of its store."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from audience_sync.domain.audience import AudienceKey, Kind, Seq, Tell
from audience_sync.domain.change import Change
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Books, Refusal, Span, SpanKind, SpanState, Tally
from audience_sync.errors import AudienceSyncError
from audience_sync.pipeline.ports.leases import Lease
from tests.fakes.destination import FakeDestination


@dataclass(kw_only=True)
class FakeLease:
    """A ``Lease`` that holds for as long as a test says."""

    name: str = "deliver:fake:initial"
    seconds: float = 60.0

    def remaining(self) -> float:
        return self.seconds


def entered(user_ids: Collection[str]) -> list[Change]:
    return [Change(user_id=user_id, before=None, after={}) for user_id in sorted(user_ids)]


def initial_span(total: int) -> Span:
    return Span(
        id=1,
        audience=AudienceKey("vip"),
        audience_kind=Kind.AUDIENCE,
        destination="fake",
        number=1,
        lane=Lane.INITIAL,
        kind=SpanKind.INITIAL,
        state=SpanState.OPEN,
        from_seq=Seq(0),
        to_seq=Seq(1),
        position=None,
        books=Books(total=total),
        captured_at=datetime(2026, 1, 1, tzinfo=UTC),
        plan_id="20260101T0000Z-0",
        tell=frozenset(Tell),
    )


@dataclass(kw_only=True)
class FakeSpans:
    """What a walk calls of ``Spans``. A commit that breaks a promise fails the test."""

    of: Sequence[Change]
    to: FakeDestination
    broken_at: int | None = None
    """So many changes can be read, then ``failure`` is raised."""
    fails_at: int | None = None
    """The commit, counted from 0, that raises ``failure`` (as do all later ones)."""
    failure: AudienceSyncError | None = None
    stored: Span = field(init=False)
    commits: list[Span] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    tried: int = 0
    completed: bool = False

    def __post_init__(self) -> None:
        self.stored = initial_span(len(self.of))

    def changes(self, span: Span) -> Iterator[Change]:
        for number, change in enumerate(self.of):
            if number == self.broken_at and self.failure:
                raise self.failure
            if span.position is None or change.user_id > span.position:
                yield change

    def advance(self, span: Span, books: Books, tally: Tally, lease: Lease) -> Span:
        self.tried += 1
        if self.fails_at is not None and self.tried > self.fails_at and self.failure:
            raise self.failure
        moved = replace(span, position=tally.last_user_id, books=books)
        self._check(span, moved, tally)
        self.stored = moved
        self.commits.append(moved)
        self.refusals += tally.rejected + tally.skipped
        return moved

    def wanted(self, span: Span) -> bool:
        return True

    def complete(self, span: Span, lease: Lease) -> None:
        assert span == self.stored, "completed from a position that is not stored"
        assert not span.books.remaining
        self.completed = True

    def _check(self, before: Span, after: Span, tally: Tally) -> None:
        assert before == self.stored, "advanced from a position that is not stored"
        assert after.position is not None
        done = [c.user_id for c in self.of if c.user_id <= after.position]
        passed = [user_id for user_id in done if user_id > (before.position or "")]
        refused = {refusal.user_id for refusal in tally.rejected + tally.skipped}
        with self.to.lock:
            known = refused | set(self.to.told)
        assert passed, "the position went back, or stayed"
        assert known.issuperset(passed), "the position passed over somebody who was not handled"
        assert tally.accepted + len(refused) == len(passed)
        assert after.books.handled == len(done)
        assert after.books.total == len(self.of)
