"""Deliver: walk open spans member by member, and move their positions over what was handled."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Span, SpanKind, SpanState, Tally, Window
from audience_sync.errors import AudienceSyncError, CallsOutdated, ChunkDamaged, SpanEnded
from audience_sync.pipeline.allowance import Allowance, Taken
from audience_sync.pipeline.batches import Batch, batches
from audience_sync.pipeline.bundle import merged, split
from audience_sync.pipeline.line import Line
from audience_sync.pipeline.ports.delivering import Spans
from audience_sync.pipeline.ports.destination import Destination
from audience_sync.pipeline.ports.leases import Lease
from audience_sync.pipeline.ports.sending import Sender, SpanContext
from audience_sync.pipeline.send import Sending, SharedPace, Stopped, too_many_rejections

Shares = dict[int, Tally]
"""What became of a batch, for each of the spans that are walked together."""

STOP_SEEN_WITHIN = 0.2
"""Seconds until a stop is noticed while requests are in flight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """What walking spans of one destination and lane needs."""

    destination: Destination
    spans: Spans
    lease: Lease
    pace: SharedPace
    allowance: Allowance
    stop: threading.Event
    installation: str
    keep_pace: Callable[[], None] = field(default=lambda: None)
    """Called again and again while the walk goes on: the lane's share of the rate may change."""
    progress: Callable[[Span], None] = field(default=lambda _span: None)
    """Called after each commit, with the span as it is stored."""
    saved: Counter[int] = field(default_factory=Counter)
    """By span id, the requests that were not needed, as one told of several audiences."""
    others_first: Callable[[], bool] = field(default=lambda: False)
    """Asked again and again while the walk goes on: ``True`` ends it, when that was sent whole of
    which a part was sent."""
    probing: bool = False
    """The destination was paused: one request alone must be accepted before more go out."""

    def deliver(self, spans: Sequence[Span]) -> list[Span]:
        """Walk ``spans`` to their end, or to where we were stopped; as they are stored then.

        Several only where the destination bundles. A person may stop one too, and with it all;
        then it is open, or, when they ended it, gone.

        No transaction is open during a network call. When anything ends the walk early, what is
        in flight is waited for, and the position still moves over the contiguous part.

        Raises:
            DestinationPaused, QuotaUsed, LeaseLost, StoreFailed: the next run goes on from the
                position.
        """
        while True:
            flight = _Flight(self, spans)
            try:
                return self._flown(flight)
            except CallsOutdated:
                spans = flight.spans

    def _flown(self, flight: _Flight) -> list[Span]:
        changes = [self.spans.changes(span) for span in flight.spans]
        told = merged(changes, [self._context(span) for span in flight.spans])
        try:
            with flight:
                for batch in batches(told, self.destination):
                    if not flight.start(batch):
                        break
        except Stopped:
            return flight.spans
        if flight.is_cut:
            raise self.allowance.used_up()
        return [self._completed(span) for span in flight.spans]

    def _context(self, span: Span) -> SpanContext:
        return SpanContext(
            audience=span.audience,
            kind=span.audience_kind,
            span_number=span.number,
            timestamp=span.captured_at,
            installation=self.installation,
            members_left=span.books.remaining if span.lane is Lane.INITIAL else 0,
            is_anew=span.kind is SpanKind.RESYNC,
        )

    def _completed(self, span: Span) -> Span:
        if span.books.remaining:
            raise ChunkDamaged(
                f"the delivery of {span.audience} ended with members left over",
                hint="please report this; nothing is counted as told that was not",
            )
        try:
            self.spans.complete(span, self.lease)
        except SpanEnded:
            return span
        return replace(span, state=SpanState.COMPLETED)


class _Flight:
    """The requests beyond the committed positions of spans, at most ``concurrency``."""

    def __init__(self, walk: Walk, spans: Sequence[Span]) -> None:
        self.spans = list(spans)
        self.is_cut = False
        self._walk = walk
        self._window: Window[Shares] = Window(1 if walk.probing else walk.destination.concurrency)
        self._running: dict[Future[Shares], int] = {}
        self._failure: AudienceSyncError | None = None
        self._may_commit = True
        self._last: Line | None = None
        self._halt = threading.Event()
        self._withdraw = threading.Event()
        self._senders: list[Sender] = []
        self._of_thread = threading.local()
        self._sending = Sending(
            destination=walk.destination,
            lease=walk.lease,
            pace=walk.pace,
            allowance=walk.allowance,
            stop=self._halt,
            withdraw=self._withdraw,
            max_rejected=max(s.books.max_rejected - s.books.rejected for s in spans),
        )

    def __enter__(self) -> _Flight:
        self._pool = ThreadPoolExecutor(self._walk.destination.concurrency, "deliver")
        return self

    def __exit__(self, kind: object, error: BaseException | None, _trace: object) -> None:
        """Wait for what is in flight, commit the contiguous part, then say what went wrong."""
        if error is not None and self._failure is None:
            self._stop_sending()
        try:
            while self._running:
                self._settle()
        finally:
            self._stop_sending()
            self._pool.shutdown()
            for sender in self._senders:
                sender.close()
        # What a request met after we began to stop must be known: it may pause the destination.
        if self._failure is not None and (error is None or isinstance(error, Stopped)):
            raise self._failure

    def start(self, batch: Batch) -> bool:
        """Send ``batch`` beside those in flight; waits while there are ``concurrency`` of them.

        ``False``: the quota suffices for its beginning only, which is sent; no other may follow.

        Raises:
            AudienceSyncError: what ended an earlier batch; this one was not started.
        """
        while self._window.full and self._failure is None:
            self._settle()
        taken = self._take(batch.cost)
        part = batch.first(taken.amount, self._walk.destination.meter())
        if part is None:
            self._walk.allowance.put_back(taken)
        else:
            taken.line = self._last = Line(self._last)
            self._running[self._pool.submit(self._send, part, taken)] = self._window.start()
        self.is_cut = part is not batch
        return not self.is_cut

    def _take(self, cost: int) -> Taken:
        """Of the quota, and less only when nobody in flight may give back what they do not need:
        a batch takes the most that it can cost."""
        while True:
            self._end_if_told()
            if self._failure is not None:
                raise self._failure
            self._walk.keep_pace()
            taken = self._walk.allowance.take(cost)
            if taken.amount >= cost or not self._running:
                return taken
            self._walk.allowance.put_back(taken)
            self._settle()

    def _end_if_told(self) -> None:
        if self._walk.stop.is_set():
            self._stop_sending()
            self._fail(Stopped("stopping"))
        elif self._failure is None and self._walk.others_first():
            self._withdraw.set()
            self._failure = Stopped("others first")

    def _stop_sending(self) -> None:
        self._halt.set()
        self._withdraw.set()

    def _send(self, batch: Batch, taken: Taken) -> Shares:
        sender: Sender | None = getattr(self._of_thread, "sender", None)
        if sender is None:
            sender = self._of_thread.sender = self._walk.destination.sender()
            self._senders.append(sender)
        tally = self._sending.send(sender, batch, taken)
        return {0: tally} if len(self.spans) == 1 else split(tally, batch.spans)

    def _settle(self) -> None:
        """Wait until something is done, and commit what is contiguous together."""
        done, _ = wait(self._running, timeout=STOP_SEEN_WITHIN, return_when=FIRST_COMPLETED)
        self._end_if_told()
        self._walk.keep_pace()
        for future in done:
            number = self._running.pop(future)
            try:
                self._window.finish(number, future.result())
            except AudienceSyncError as error:
                self._fail(error)
        ripe = list(self._window.ripe())
        if ripe and self._may_commit:
            self._commit(ripe)

    def _commit(self, ripe: list[Shares]) -> None:
        """Nothing is committed after a failed commit: a position would pass over members."""
        self._may_commit = False
        together = ripe[0]
        for later in ripe[1:]:
            for number, tally in later.items():
                if number in together:
                    together[number].absorb(tally)
                else:
                    together[number] = tally
        self._may_commit = all(self._advance(n, tally) for n, tally in together.items())

    def _advance(self, number: int, tally: Tally) -> bool:
        """Whether the position of one span has moved."""
        walk, span = self._walk, self.spans[number]
        books = span.books.add(tally)
        if books.rejected > books.max_rejected:
            self._fail(too_many_rejections(walk.destination.name, books.max_rejected))
            return False
        try:
            span = self.spans[number] = walk.spans.advance(span, books, tally, walk.lease)
        except SpanEnded:
            self._fail(Stopped("a person ended it"))
            return False
        except AudienceSyncError as error:
            self._fail(error)
            return False
        walk.saved[span.id] += tally.saved
        if tally.accepted:
            self._window.size = walk.destination.concurrency
        walk.progress(span)
        if span.books.remaining and not walk.spans.wanted(span):
            self._fail(Stopped("a person ordered otherwise"))
        return True

    def _fail(self, error: AudienceSyncError) -> None:
        if not (isinstance(error, Stopped) and self._withdraw.is_set()):
            self._stop_sending()
        if self._failure is None or isinstance(self._failure, Stopped):
            self._failure = error
