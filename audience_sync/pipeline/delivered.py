"""What became of the spans that a delivery run walked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from audience_sync.domain.span import Books, Span, SpanState
from audience_sync.errors import AudienceSyncError, DestinationPaused, LeaseTaken, QuotaUsed


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivered:
    """What became of one span in one run.

    ``outcome``: ``completed``, ``stopped`` (time over, or asked to stop), ``held``, ``paused``,
    ``quota used``, ``leased`` (another process is at work on it) or ``failed``. The counts are this
    run's; what still waits is in ``span``.
    """

    span: Span
    outcome: str
    accepted: int = 0
    rejected: int = 0
    skipped: int = 0
    saved: int = 0
    """Requests fewer than one for each member and audience."""
    error: AudienceSyncError | None = None
    run: int | None = None
    """Of the recorded delivery run."""
    done_at: datetime | None = None
    """About when all of it is told, if the quota of today is used."""

    @property
    def failed(self) -> bool:
        """A used-up quota is no failure: the lane goes on by itself. Nor is another process that is
        at work on it."""
        return self.error is not None and not isinstance(self.error, QuotaUsed | LeaseTaken)


@dataclass(frozen=True, kw_only=True, slots=True)
class Walked:
    """A span after a walk: as it is stored now, and what ended the walk."""

    span: Span
    outcome: str
    """One of those of ``Delivered``, or ``GOES_ON``."""
    error: AudienceSyncError | None = None


GOES_ON = "goes on"
"""Others are told first; the run walks it again."""


def outcome_of(error: AudienceSyncError) -> str:
    if isinstance(error, QuotaUsed):
        return "quota used"
    return "paused" if isinstance(error, DestinationPaused) else "failed"


def ended(span: Span, error: AudienceSyncError | None, otherwise: str = "stopped") -> Walked:
    """``otherwise``: the outcome, if the span is not completed and nothing went wrong."""
    outcome = otherwise if error is None else outcome_of(error)
    if span.state is SpanState.COMPLETED:
        outcome = "completed"
    return Walked(span=span, outcome=outcome, error=error)


class Accounts:
    """What a run has done for each span since it was last said.

    A person may stop a span and let it go on within one run; then it is said twice, and each
    time with what came since.
    """

    def __init__(self) -> None:
        self.saved: Counter[int] = Counter()
        """By span id."""
        self._since: dict[int, Books] = {}
        self._open: dict[int, Span] = {}

    def begin(self, spans: Iterable[Span]) -> None:
        """They are about to be walked, perhaps again."""
        for span in spans:
            self._since.setdefault(span.id, span.books)
            self._open[span.id] = span

    def goes_on(self, span: Span) -> None:
        """It is as it is now, and is walked again later."""
        self._open[span.id] = span

    def gone(self, spans: Iterable[Span]) -> list[Delivered]:
        """Those that were begun and are not among ``spans``: a person ordered otherwise."""
        still = {span.id for span in spans}
        away = [span for span in self._open.values() if span.id not in still]
        return [self.said(Walked(span=span, outcome="stopped")) for span in away]

    def said(self, walked: Walked, *, done_at: datetime | None = None) -> Delivered:
        span = walked.span
        self._open.pop(span.id, None)
        books, were = span.books, self._since.pop(span.id, span.books)
        return Delivered(
            span=span,
            outcome=walked.outcome,
            accepted=books.accepted - were.accepted,
            rejected=books.rejected - were.rejected,
            skipped=books.skipped - were.skipped,
            saved=self.saved.pop(span.id, 0),
            error=walked.error,
            done_at=done_at,
        )
