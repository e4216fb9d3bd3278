"""Tells a destination by hand what a log has for it, one member at a time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta

from audience_sync.domain.audience import Row, Tell
from audience_sync.domain.change import Change
from audience_sync.domain.guard import Limits
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Refusal, Span, Tally
from audience_sync.store.orders import Given, Orders
from audience_sync.store.rejections import Rejection, Rejections
from tests.fakes.snapshot_log import Log, new_lease

ANN = Given(actor="ann@ops", reason="seen")
BOTH = frozenset({Tell.ENTERED, Tell.EXITED})
MINUTE = timedelta(minutes=1)


@dataclass(eq=False)
class Teller:
    """One destination of a ``Log``. The books are checked at every commit."""

    log: Log
    to: str = "crisp"
    tell: frozenset[Tell] = BOTH
    limits: Limits = field(default_factory=Limits)
    heard: dict[str, Row | None] = field(default_factory=dict)
    """What was accepted last of each user: the row of a member, ``None`` of one who is none."""
    calls: list[str] = field(default_factory=list)
    """``+user``, ``-user``, and ``=user`` of an update or of one who is told anew."""

    def __post_init__(self) -> None:
        self.orders = Orders(self.log.database, self.log.clock)
        self.rejections = Rejections(self.log.database)

    @property
    def told(self) -> set[str]:
        """Who is a member, as far as the destination knows."""
        return {user_id for user_id, row in self.heard.items() if row is not None}

    def now(self) -> frozenset[Tell]:
        """What is told: of one that is retired that all have left, as ``Admission`` has it."""
        is_retired = self.log.snapshots.left_alone(self.log.key) == "retired"
        return frozenset({Tell.EXITED}) if is_retired else self.tell

    def lease(self, lane: Lane = Lane.INITIAL):  # type: ignore[no-untyped-def]
        return new_lease(self.log.database, f"deliver:{self.to}:{lane}")

    def open(self) -> Span | None:
        """Give up what is superseded, and open what waits; the open span."""
        spans = self.log.spans
        for lane in Lane:
            for old in spans.superseded(self.to, lane):
                spans.abandon(old, self.lease(lane))
        for waiting in spans.waiting(self.to, [self.log.key]):
            lease = self.lease(waiting.lane)
            spans.open(waiting, self.to, tell=self.now(), limits=self.limits, lease=lease)
        mine = (span for span in spans.unfinished(self.to) if span.audience == self.log.key)
        return next(mine, None)

    def walk(
        self,
        span: Span,
        *,
        refuse: Collection[str] = (),
        members: int | None = None,
        killed: bool = False,
        outcome: str = "rejected",
    ) -> Span:
        """Tell so many members (all), with a commit after each.

        Args:
            killed: the last one is accepted, but not committed.
        """
        lease = self.lease(span.lane)
        for number, change in enumerate(self.log.spans.changes(span), start=1):
            if members is not None and number > members:
                break
            refused = change.user_id in refuse
            if not refused:
                self.accept(change)
            if killed and number == members:
                break
            span = self.commit(span, change, outcome if refused else None, lease)
        return span

    def accept(self, change: Change) -> None:
        sign = {Tell.ENTERED: "+", Tell.EXITED: "-", Tell.UPDATED: "="}[change.kind]
        self.calls.append(sign + change.user_id)
        self.heard[change.user_id] = change.after

    def commit(self, span: Span, change: Change, refused: str | None, lease) -> Span:  # type: ignore[no-untyped-def]
        refusal = Refusal(user_id=change.user_id, reason=f"refused by span {span.number}")
        tally = Tally(last_user_id=change.user_id, accepted=0 if refused else 1)
        if refused:
            getattr(tally, refused).append(refusal)
        moved = self.log.spans.advance(span, span.books.add(tally), tally, lease)
        assert moved.books.remaining == len(list(self.log.spans.changes(moved)))
        return moved

    def run(self, *, refuse: Collection[str] = (), outcome: str = "rejected") -> list[str]:
        """One whole delivery: open, walk, complete. The calls of it."""
        before = len(self.calls)
        self.log.clock.now += MINUTE
        span = self.open()
        if span is not None:
            self.finish(span, refuse=refuse, outcome=outcome)
        return self.calls[before:]

    def finish(
        self, span: Span, *, refuse: Collection[str] = (), outcome: str = "rejected"
    ) -> None:
        walked = self.walk(span, refuse=refuse, outcome=outcome)
        assert walked.books.remaining == 0
        self.log.spans.complete(walked, self.lease(span.lane))

    def resync(self) -> list[str]:
        self.log.clock.now += MINUTE
        return self.orders.resync(self.log.key, [self.to], ANN)

    def retry(self) -> int:
        return self.orders.retry([self.log.key], [self.to], ANN)

    def standing(self) -> list[Rejection]:
        return list(self.rejections.unresolved([self.log.key], [self.to]))

    def stand(self) -> list[str]:
        return [rejection.user_id for rejection in self.standing()]
