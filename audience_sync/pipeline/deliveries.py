"""Deliver to all destinations at once, lane by lane. Knows no source."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from audience_sync.domain.audience import AudienceKey
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Span
from audience_sync.errors import (
    AudienceSyncError,
    DestinationPaused,
    LeaseTaken,
)
from audience_sync.pipeline.lanes import Delivered, LaneRun, Subscription
from audience_sync.pipeline.ports import (
    Destination,
    Lease,
    Leases,
    Pauses,
    Spans,
)


class DeliveryBook(Pauses, Protocol):
    def start_run(self, destination: str, lane: Lane, lease: Lease) -> int: ...

    def end_run(
        self, run_id: int, outcome: str, counts: dict[str, int], error: str | None, lease: Lease
    ) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Deliveries:
    """Delivers to all destinations at once, so that one which is down delays no other."""

    destinations: Mapping[str, Destination]
    subscriptions: Mapping[str, Mapping[AudienceKey, Subscription]]
    """For each destination, how its audiences are told."""
    spans: Spans
    book: DeliveryBook
    leases: Leases
    installation: str
    clock: Callable[[], datetime]
    elapsed: Callable[[], float]
    progress: Callable[[Span], None] = field(default=lambda _span: None)

    def deliver(
        self, stop: threading.Event, only: Collection[AudienceKey] | None = None
    ) -> Iterator[Delivered]:
        """At each destination incremental deliveries first, then initial ones.

        Raises:
            LeaseTaken: never; a lane that is leased is skipped.
            StoreFailed, LeaseLost: nothing can be written now.
        """
        with ThreadPoolExecutor(max(len(self.destinations), 1), "destination") as pool:
            runs = [
                pool.submit(self._lanes, destination, stop, only)
                for destination in self.destinations.values()
            ]
            for run in runs:
                yield from run.result()

    def _lanes(
        self,
        destination: Destination,
        stop: threading.Event,
        only: Collection[AudienceKey] | None,
    ) -> Sequence[Delivered]:
        """One lane after the other; what paused the first is not asked again by the second."""
        incremental = self._run(destination, Lane.INCREMENTAL, stop, only)
        met = next((d.error for d in incremental if isinstance(d.error, DestinationPaused)), None)
        return [*incremental, *self._run(destination, Lane.INITIAL, stop, only, met)]

    def _run(
        self,
        destination: Destination,
        lane: Lane,
        stop: threading.Event,
        only: Collection[AudienceKey] | None,
        error: AudienceSyncError | None = None,
    ) -> Sequence[Delivered]:
        configured = self.subscriptions.get(destination.name, {})
        wanted = {key: how for key, how in configured.items() if only is None or key in only}
        if not self._has_work(destination.name, lane, wanted):
            return []
        try:
            with self.leases.hold(f"deliver:{destination.name}:{lane}") as lease:
                run_id = self.book.start_run(destination.name, lane, lease)
                lane_run = LaneRun(
                    destination=destination,
                    lane=lane,
                    subscriptions=wanted,
                    configured=configured.keys(),
                    spans=self.spans,
                    pauses=self.book,
                    lease=lease,
                    installation=self.installation,
                    stop=stop,
                    clock=self.clock,
                    elapsed=self.elapsed,
                    progress=self.progress,
                    error=error,
                )
                delivered = list(lane_run.deliver())
                self._end(run_id, delivered, lease)
                return delivered
        except LeaseTaken as taken:
            return [
                Delivered(span=span, outcome="leased", error=taken)
                for span in self.spans.unfinished(destination.name, lane)
                if span.audience in wanted
            ]

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
        }
        errors = [d.error for d in delivered if d.error is not None]
        outcome = "failed" if errors else "completed"
        self.book.end_run(run_id, outcome, counts, str(errors[0]) if errors else None, lease)
