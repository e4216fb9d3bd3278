"""The program, wired into one object."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from audience_sync.actor import actor
from audience_sync.config.model import Config
from audience_sync.domain.audience import Audience, AudienceKey, OnRetire
from audience_sync.domain.contact import Contact
from audience_sync.domain.span import Span
from audience_sync.engines.duckdb import DuckDBEngine
from audience_sync.engines.instance import Instance
from audience_sync.engines.members import DuckDBMembers
from audience_sync.errors import ChunkDamaged, LeaseTaken, UsageError
from audience_sync.pipeline.admission import Admission
from audience_sync.pipeline.captures import CaptureOutcome, Captures, Configured
from audience_sync.pipeline.delivered import Delivered
from audience_sync.pipeline.deliveries import Deliveries
from audience_sync.pipeline.ports.reading import Source
from audience_sync.pipeline.retire import retire
from audience_sync.pipeline.subscription import Subscription
from audience_sync.sources.nobody import Nobody
from audience_sync.store.contacts import put
from audience_sync.store.destinations import Destinations
from audience_sync.store.engine import Database
from audience_sync.store.history import Histories
from audience_sync.store.ids import destination_id
from audience_sync.store.installation import Installation
from audience_sync.store.leases import Leases
from audience_sync.store.lookups import Lookups
from audience_sync.store.orders import Given, Orders
from audience_sync.store.quotas import Quotas
from audience_sync.store.rejections import Rejections
from audience_sync.store.retirement import Retirement
from audience_sync.store.snapshots import Snapshots
from audience_sync.store.spans import Spans
from audience_sync.wiring import Destination

log = structlog.get_logger(__name__)


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class App:
    """The program, wired: what commands and, later, the scheduler call."""

    config: Config
    database: Database
    is_new: bool
    """The store was made just now, and knows of nobody who was told anything."""
    absent: Database | None
    """The configured store, if it is not there and ``database`` stands in for it, empty."""
    installation: Installation
    snapshots: Snapshots
    spans: Spans
    leases: Leases
    patient_leases: Leases
    """For orders of a person, who would rather wait a moment than try again."""
    books: Destinations
    quotas: Quotas
    orders: Orders
    rejections: Rejections
    instance: Instance
    engine: DuckDBEngine
    members: DuckDBMembers
    lookups: Lookups
    histories: Histories
    sources: Mapping[str, Source]
    destinations: Mapping[str, Destination]
    audiences: Mapping[AudienceKey, Configured]
    subscriptions: Mapping[str, Mapping[AudienceKey, Subscription]]
    places: Mapping[str, str]
    """Where each destination is."""
    harmless: frozenset[str]
    """Destinations that a made-up ``--now`` cannot hurt: files, and servers on this machine."""

    def captures(self) -> Captures:
        """For one cycle: who is captured in it at one cadence is due again together."""
        drawn = random.random()
        return Captures(
            snapshots=self.snapshots,
            engine=self.engine,
            leases=self.leases,
            clock=now,
            draw=lambda: drawn,
        )

    def admission(self) -> Admission:
        """Who may be captured and told, by what the store knows now."""
        return Admission(known=self.orders.known(), configured=self.audiences.keys())

    def retire(
        self, audience: Audience, on_retire: OnRetire, given: Given, leases: Leases | None = None
    ) -> int:
        """Close an audience for good; how many members are told that they have left.

        Raises:
            LeaseTaken: it is being captured.
            UsageError: it is retired already; in another process, perhaps at this moment.
        """
        with (leases or self.patient_leases).hold(f"capture:{audience.key}") as lease:
            if self.snapshots.left_alone(audience.key) == "retired":
                raise UsageError(f"{audience.key} is retired already")
            self.snapshots.sweep(audience.key, lease)
            current = self.snapshots.current(audience.key)
            return retire(
                audience,
                on_retire=on_retire,
                nobody=Nobody(current.columns if current else {}),
                engine=self.engine,
                snapshots=self.snapshots,
                book=Retirement(database=self.database, clock=now, given=given),
                lease=lease,
                now=now(),
            )

    def retire_by_file(self, configured: Configured) -> CaptureOutcome:
        """Close an audience because the configuration says so.

        ``outcome``: ``retired``, ``leased``, or ``failed`` where its members cannot be read.
        """
        given = Given(actor=actor(), reason="the configuration says so")
        key = configured.audience.key
        try:
            self.retire(configured.audience, configured.on_retire, given, self.leases)
        except LeaseTaken as error:
            return CaptureOutcome(audience=key, outcome="leased", error=error)
        except ChunkDamaged as error:
            return CaptureOutcome(audience=key, outcome="failed", error=error)
        except UsageError:
            log.info("another process has retired it", audience=key)
        return CaptureOutcome(audience=key, outcome="retired")

    def deliveries(
        self,
        progress: Callable[[Span], None],
        ended: Callable[[Delivered], None] = lambda _delivered: None,
    ) -> Deliveries:
        stopped = self.orders.stopped()
        return Deliveries(
            destinations={n: to for n, to in self.destinations.items() if n not in stopped},
            subscriptions=lambda: self.admission().subscriptions(
                self.subscriptions, self.audiences
            ),
            spans=self.spans,
            book=self.books,
            quotas=self.quotas,
            leases=self.leases,
            installation=self.installation.key,
            clock=now,
            elapsed=time.monotonic,
            progress=progress,
            ended=ended,
        )

    def learn(self, destination: str, contacts: Sequence[Contact]) -> None:
        """What an order of a person taught of a destination's people."""
        if contacts:
            with self.database.write() as connection:
                put(connection, destination_id(connection, destination), contacts)

    def close(self) -> None:
        """Nothing may be at work any more."""
        self.database.close()
        self.instance.close()
