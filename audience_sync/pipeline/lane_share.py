"""A lane's part of a destination's rate, which changes while the lane is at work."""

from __future__ import annotations

from collections.abc import Callable, Collection

import structlog

from audience_sync.domain.audience import AudienceKey
from audience_sync.domain.quota import Lane, share
from audience_sync.errors import StoreFailed
from audience_sync.pipeline.ports.delivering import Spans
from audience_sync.pipeline.ports.destination import Destination
from audience_sync.pipeline.send import SharedPace

LOOK_EVERY = 1.0
"""Seconds for which a lane may not know that an initial delivery began or ended. It is one small
query of the store."""

log = structlog.get_logger(__name__)


class LaneShare:
    """``configured``: audiences of the destination; a first delivery of any takes its part."""

    def __init__(
        self,
        *,
        destination: Destination,
        lane: Lane,
        spans: Spans,
        configured: Collection[AudienceKey],
        elapsed: Callable[[], float],
    ) -> None:
        self._destination = destination
        self._lane = lane
        self._spans = spans
        self._configured = configured
        self._elapsed = elapsed
        self._looked_at = elapsed()
        self.pace = SharedPace(self._rate(), elapsed)

    def keep(self) -> None:
        """Look again, if it is time to. For one thread."""
        now = self._elapsed()
        if now - self._looked_at < LOOK_EVERY:
            return
        self._looked_at = now
        try:
            self.pace.change(self._rate())
        except StoreFailed as error:  # what is in flight is still to be written down
            log.warning("the share of the rate stays", lane=str(self._lane), error=str(error))

    def _rate(self) -> float:
        under_way = self._spans.under_way(self._destination.name, Lane.INITIAL)
        initial_open = any(key in self._configured for key in under_way)
        reserve = self._destination.reserve
        return self._destination.rate * share(
            self._lane, reserve=reserve, initial_open=initial_open
        )
