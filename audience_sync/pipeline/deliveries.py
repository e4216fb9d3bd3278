"""Deliver to all destinations at once, lane by lane. Knows no source."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from structlog.contextvars import bound_contextvars

from audience_sync.domain.audience import AudienceKey
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Span, SpanState
from audience_sync.errors import (
    AudienceSyncError,
    DestinationPaused,
    LeaseTaken,
    QuotaUsed,
)
from audience_sync.pipeline.delivered import Delivered
from audience_sync.pipeline.lanes import LaneRun
from audience_sync.pipeline.ports.delivering import Pauses, Quotas, Spans
from audience_sync.pipeline.ports.destination import Destination
from audience_sync.pipeline.ports.leases import Lease, Leases
from audience_sync.pipeline.subscription import Subscription


class DeliveryBook(Pauses, Protocol):
    def start_run(self, destination: str, lane: Lane, lease: Lease) -> int: ...

    def end_run(
        self, run_id: int, outcome: str, counts: dict[str, int], error: str | None, lease: Lease
    ) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Deliveries:
    """Delivers to all destinations at once, so that one which is down delays no other."""

    destinations: Mapping[str, Destination]
    subscriptions: Callable[[], Mapping[str, Mapping[AudienceKey, Subscription]]]
    """For each destination, how its audiences are told, as people want it now."""
    spans: Spans
    book: DeliveryBook
    quotas: Quotas
    leases: Leases
    installation: str
    clock: Callable[[], datetime]
    elapsed: Callable[[], float]
    progress: Callable[[Span], None] = field(default=lambda _span: None)
    ended: Callable[[Delivered], None] = field(default=lambda _delivered: None)
    """Called with each span as soon as it is known what became of it; a run may go on for days."""

    def deliver(
        self, stop: threading.Event, only: Collection[AudienceKey] | None = None
    ) -> Iterator[Delivered]:
        """At each destination incremental deliveries first, then initial ones, and what these
        had kept waiting.

        Raises:
            LeaseTaken: never; a lane that is leased is skipped.
            StoreFailed, LeaseLost: nothing can be written now; what the other destinations
                were told is yielded before.
        """
        with ThreadPoolExecutor(max(len(self.destinations), 1), "destination") as pool:
            runs = [
                pool.submit(self._lanes, destination, stop, only)
                for destination in self.destinations.values()
            ]
            failures: list[AudienceSyncError] = []
            for run in runs:
                try:
                    delivered = run.result()
                except AudienceSyncError as error:
                    failures.append(error)
                else:
                    yield from delivered
        if failures:
            raise failures[0]

    def _lanes(
        self,
        destination: Destination,
        stop: threading.Event,
        only: Collection[AudienceKey] | None,
    ) -> Sequence[Delivered]:
        """One lane after the other; what paused one is not asked again by the next.

        What changed while a first delivery went on waited for its end, which may be now.
        """
        incremental = self.lane(destination, Lane.INCREMENTAL, stop, only)
        initial = self.lane(destination, Lane.INITIAL, stop, only, _pause(incremental))
        ended = {d.span.audience for d in initial if d.outcome == "completed"}
        if not ended:
            return [*incremental, *initial]
        waited = self.lane(destination, Lane.INCREMENTAL, stop, ended, _pause(initial))
        return [*incremental, *initial, *waited]

    def lane(
        self,
        destination: Destination,
        lane: Lane,
        stop: threading.Event,
        only: Collection[AudienceKey] | None = None,
        error: AudienceSyncError | None = None,
    ) -> Sequence[Delivered]:
        """One run of one lane, when it has anything to do.

        Args:
            error: what the other lane just met there: nothing is sent.

        Raises:
            StoreFailed, LeaseLost: nothing can be written now.
        """

        def subscribed() -> Mapping[AudienceKey, Subscription]:
            return self._subscribed(destination.name, only)

        wanted = subscribed()
        if not self._has_work(destination.name, lane, wanted):
            return []
        try:
            with self.leases.hold(f"deliver:{destination.name}:{lane}") as lease:
                run_id = self.book.start_run(destination.name, lane, lease)
                lane_run = LaneRun(
                    destination=destination,
                    lane=lane,
                    subscribed=subscribed,
                    configured=self._subscribed(destination.name).keys(),
                    spans=self.spans,
                    pauses=self.book,
                    quotas=self.quotas,
                    lease=lease,
                    installation=self.installation,
                    stop=stop,
                    clock=self.clock,
                    elapsed=self.elapsed,
                    progress=self.progress,
                    error=error,
                )
                delivered = []
                with bound_contextvars(run=run_id):
                    for one in lane_run.deliver():
                        delivered.append(replace(one, run=run_id))
                        self.ended(delivered[-1])
                self._end(run_id, delivered, lease)
                return delivered
        except LeaseTaken as taken:
            return [
                Delivered(span=span, outcome="leased", error=taken)
                for span in self.spans.unfinished(destination.name, lane)
                if span.audience in wanted
            ]

    def waits(self, name: str, lane: Lane) -> bool:
        """Whether a run of the lane would have anything to send; held deliveries are not."""
        wanted = self._subscribed(name)
        return any(
            span.state is SpanState.OPEN and span.audience in wanted
            for span in self.spans.unfinished(name, lane)
        ) or any(waiting.lane is lane for waiting in self.spans.waiting(name, wanted))

    def _subscribed(
        self, name: str, only: Collection[AudienceKey] | None = None
    ) -> Mapping[AudienceKey, Subscription]:
        of = self.subscriptions().get(name, {})
        return {key: how for key, how in of.items() if only is None or key in only}

    def _has_work(self, name: str, lane: Lane, wanted: Mapping[AudienceKey, Subscription]) -> bool:
        """Asked before the lease is taken, so that an idle run writes nothing."""
        return any(span.audience in wanted for span in self.spans.unfinished(name, lane)) or any(
            waiting.lane is lane for waiting in self.spans.waiting(name, wanted)
        )

    def _end(self, run_id: int, delivered: Sequence[Delivered], lease: Lease) -> None:
        counts = {
            "accepted": sum(d.accepted for d in delivered),
            "rejected": sum(d.rejected for d in delivered),
            "skipped": sum(d.skipped for d in delivered),
            "saved": sum(d.saved for d in delivered),
        }
        errors = [d.error for d in delivered if d.failed]
        quota_used = any(isinstance(d.error, QuotaUsed) for d in delivered)
        outcome = "failed" if errors else "quota used" if quota_used else "completed"
        self.book.end_run(run_id, outcome, counts, str(errors[0]) if errors else None, lease)


def _pause(delivered: Sequence[Delivered]) -> DestinationPaused | None:
    return next((d.error for d in delivered if isinstance(d.error, DestinationPaused)), None)
