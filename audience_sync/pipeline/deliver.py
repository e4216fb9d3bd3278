"""Deliver: walk open spans member by member, and move their positions over what was handled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

from audience_sync.domain.span import Span, SpanState, Tally, Window
from audience_sync.errors import AudienceSyncError, ChunkDamaged, SpanEnded
from audience_sync.pipeline.ports import Destination, Lease, Sender, SpanContext, Spans
from audience_sync.pipeline.send import (
    Batch,
    Sending,
    SharedPace,
    Stopped,
    batches,
    too_many_rejections,
)

STOP_SEEN_WITHIN = 0.2
"""Seconds until a stop is noticed while requests are in flight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """What walking spans of one destination and lane needs."""

    destination: Destination
    spans: Spans
    lease: Lease
    pace: SharedPace
    stop: threading.Event
    installation: str
    progress: Callable[[Span], None] = field(default=lambda _span: None)
    """Called after each commit, with the span as it is stored."""
    probing: bool = False
    """The destination was paused: one request alone must be accepted before more go out."""

    def deliver(self, span: Span) -> Span:
        """Walk ``span`` to its end, or to where we were stopped; the span as it is stored then.

        A person may stop it too; then it is open, or, when they ended it, gone.

        No transaction is open during a network call. When anything ends the walk early, what is
        in flight is waited for, and the position still moves over the contiguous part.

        Raises:
            DestinationPaused, LeaseLost, StoreFailed: the next run goes on from the position.
        """
        context = SpanContext(
            audience=span.audience,
            kind=span.audience_kind,
            span_number=span.number,
            timestamp=span.captured_at,
            installation=self.installation,
        )
        changes = self.spans.changes(span)
        flight = _Flight(self, span)
        try:
            with flight:
                for batch in batches(changes, self.destination, context):
                    flight.start(batch)
        except Stopped:
            return flight.span
        if flight.span.books.remaining:
            raise ChunkDamaged(
                f"the delivery of {span.audience} ended with members left over",
                hint="please report this; nothing is counted as told that was not",
            )
        try:
            self.spans.complete(flight.span, self.lease)
        except SpanEnded:
            return flight.span
        return replace(flight.span, state=SpanState.COMPLETED)


class _Flight:
    """The requests of one span beyond its committed position, at most ``concurrency``."""

    def __init__(self, walk: Walk, span: Span) -> None:
        self.span = span
        self._walk = walk
        self._window = Window(1 if walk.probing else walk.destination.concurrency)
        self._running: dict[Future[Tally], int] = {}
        self._failure: AudienceSyncError | None = None
        self._may_commit = True
        self._halt = threading.Event()
        self._senders: list[Sender] = []
        self._of_thread = threading.local()
        self._sending = Sending(
            destination=walk.destination,
            lease=walk.lease,
            pace=walk.pace,
            stop=self._halt,
            max_rejected=span.books.max_rejected - span.books.rejected,
        )

    def __enter__(self) -> _Flight:
        self._pool = ThreadPoolExecutor(self._walk.destination.concurrency, "deliver")
        return self

    def __exit__(self, kind: object, error: BaseException | None, _trace: object) -> None:
        """Wait for what is in flight, commit the contiguous part, then say what went wrong."""
        if error is not None:
            self._halt.set()
        try:
            while self._running:
                self._settle()
        finally:
            self._halt.set()
            self._pool.shutdown()
            for sender in self._senders:
                sender.close()
        # What a request met after we began to stop must be known: it may pause the destination.
        if self._failure is not None and (error is None or isinstance(error, Stopped)):
            raise self._failure

    def start(self, batch: Batch) -> None:
        """Send ``batch`` beside those in flight; waits while there are ``concurrency`` of them.

        Raises:
            AudienceSyncError: what ended an earlier batch; this one was not started.
        """
        while self._window.full and self._failure is None:
            self._settle()
        if self._walk.stop.is_set():
            self._fail(Stopped("stopping"))
        if self._failure is not None:
            raise self._failure
        self._running[self._pool.submit(self._send, batch)] = self._window.start()

    def _send(self, batch: Batch) -> Tally:
        sender: Sender | None = getattr(self._of_thread, "sender", None)
        if sender is None:
            sender = self._of_thread.sender = self._walk.destination.sender()
            self._senders.append(sender)
        return self._sending.send(sender, batch)

    def _settle(self) -> None:
        """Wait until something is done, and commit what is contiguous in one transaction."""
        done, _ = wait(self._running, timeout=STOP_SEEN_WITHIN, return_when=FIRST_COMPLETED)
        if self._walk.stop.is_set():
            self._halt.set()
        for future in done:
            number = self._running.pop(future)
            try:
                self._window.finish(number, future.result())
            except AudienceSyncError as error:
                self._fail(error)
        ripe = list(self._window.ripe())
        if ripe and self._may_commit:
            self._commit(ripe)

    def _commit(self, ripe: list[Tally]) -> None:
        """Nothing is committed after a failed commit: the position would pass over members."""
        self._may_commit = False
        for later in ripe[1:]:
            ripe[0].absorb(later)
        books = self.span.books.add(ripe[0])
        if books.rejected > books.max_rejected:
            self._fail(too_many_rejections(self._walk.destination.name, books.max_rejected))
            return
        try:
            self.span = self._walk.spans.advance(self.span, books, ripe[0], self._walk.lease)
        except SpanEnded:
            self._fail(Stopped("a person ended it"))
            return
        except AudienceSyncError as error:
            self._fail(error)
            return
        self._may_commit = True
        if ripe[0].accepted:
            self._window.size = self._walk.destination.concurrency
        self._walk.progress(self.span)
        if self.span.books.remaining and not self._walk.spans.wanted(self.span):
            self._fail(Stopped("a person ordered otherwise"))

    def _fail(self, error: AudienceSyncError) -> None:
        self._halt.set()
        if self._failure is None or isinstance(self._failure, Stopped):
            self._failure = error
