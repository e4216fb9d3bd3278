"""Audiences of a real store, told to the sandbox's Crisp by one process after another."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from audience_sync.domain.audience import AudienceKey, Columns, Kind, Tell
from audience_sync.domain.guard import Limits
from audience_sync.domain.span import Span
from audience_sync.pipeline.delivered import Delivered
from audience_sync.pipeline.deliveries import Deliveries
from audience_sync.pipeline.subscription import Subscription
from audience_sync.store.contacts import Contacts
from audience_sync.store.destinations import Destinations
from audience_sync.store.engine import Database
from audience_sync.store.installation import installation_of
from audience_sync.store.leases import Leases
from audience_sync.store.quotas import Quotas
from audience_sync.store.spans import Spans
from tests.fakes.crisp import NOW, Crisp, destination
from tests.fakes.snapshot_log import EMAIL, Clock, Log

HOW = Subscription(tell=frozenset(Tell), limits=Limits(max_initial=10**9))


@dataclass(kw_only=True)
class CrispStation:
    """``other``: settings of the destination."""

    database: Database
    crisp: Crisp
    other: dict[str, Any] = field(default_factory=dict)
    rows_per_chunk: int = 1000
    logs: dict[str, Log] = field(default_factory=dict)
    progress: Callable[[Span], None] = lambda _span: None
    stop: threading.Event = field(default_factory=threading.Event)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        installation_of(self.database, NOW)

    def log(self, key: str = "vip", columns: Columns = EMAIL, kind: Kind = Kind.AUDIENCE) -> Log:
        if key not in self.logs:
            self.logs[key] = Log(
                self.database,
                AudienceKey(key),
                rows_per_chunk=self.rows_per_chunk,
                columns=columns,
                kind=kind,
                clock=self.clock,
            )
        return self.logs[key]

    def run(self) -> list[Delivered]:
        """One delivery run of a process of its own, as ``sync`` does it."""
        clock = self.clock
        to = destination(
            self.crisp, Contacts(self.database, "crisp"), clock=clock, **{"bulk": True} | self.other
        )
        deliveries = Deliveries(
            destinations={"crisp": to},
            subscriptions=lambda: {"crisp": {log.key: HOW for log in self.logs.values()}},
            spans=Spans(self.database, clock),
            book=Destinations(self.database, clock),
            quotas=Quotas(self.database),
            leases=Leases(self.database),
            installation="installation",
            clock=clock,
            elapsed=time.monotonic,
            progress=self.progress,
        )
        return list(deliveries.deliver(self.stop))

    def requests(self) -> Counter[str]:
        """By route and outcome."""
        counts: Counter[str] = Counter()
        for routes in self.crisp.get("counts.json")["days"].values():
            for route, outcomes in routes.get("crisp", {}).items():
                for outcome, number in outcomes.items():
                    counts[f"{route} {outcome}"] += number
        return counts
