"""``/metrics``: everything as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from importlib.metadata import version

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from audience_sync.errors import StoreFailed
from audience_sync.standing.facts import Facts
from audience_sync.standing.measures import Measures, measure
from audience_sync.web.families import counted, itself, measured
from audience_sync.web.latest import Latest

log = structlog.get_logger(__name__)

FRESH = 10.0
"""Seconds for which scrapes are told the same of the store, so that they never load it."""

PATIENCE = 2.0


class Metrics(Collector):
    """Belongs to the event loop of the server.

    While the store cannot be read what was last known stays: an alert on the age of the last
    success must not fall silent with the store.
    """

    def __init__(self, facts: Facts, clock: Callable[[], datetime]) -> None:
        self._facts = facts
        self._clock = clock
        self._known: Measures | None = None
        self._reachable = False
        self._store = Latest("metrics", self._read, fresh=FRESH, patience=PATIENCE)
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    async def text(self, accept: str) -> tuple[bytes, str]:
        """The metrics and their content type, which ``accept`` may choose."""
        try:
            known = await self._store.get()
        except Exception as error:
            self._reachable = False
            if not isinstance(error, StoreFailed | TimeoutError):
                log.error("metrics could not be read", exc_info=error)
        else:
            self._known = known
            self._reachable = known is not None
        return _encoded(accept, self._registry)

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        yield from itself(_version(), reachable=self._reachable)
        if self._known is not None:
            yield from measured(self._known)
        yield from counted(self._facts.counters.read())

    def _read(self) -> Measures | None:
        app = self._facts.app()
        return None if app is None else measure(app, self._clock())


def _version() -> str:
    return version("audience-sync")


def _encoded(accept: str, registry: CollectorRegistry) -> tuple[bytes, str]:
    try:
        encode, content_type = choose_encoder(accept)
    except Exception:  # the library trips over a version that is none, in several ways
        encode, content_type = choose_encoder("")
    return encode(registry), content_type
