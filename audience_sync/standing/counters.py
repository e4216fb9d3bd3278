"""What the daemon counts while it runs, for ``/metrics``. Nothing here outlives the process."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from audience_sync.domain.audience import AudienceKey
from audience_sync.domain.quota import Lane

RELOADS = ("done", "refused")


class Counted(StrEnum):
    """What is counted; the value is the metric's name without ``audience_sync_`` and ``_total``."""

    CAPTURES = "captures"
    DELIVERED_MEMBERS = "delivered_members"
    RELOADS = "reloads"
    LOOP_ERRORS = "loop_errors"
    STORE_ERRORS = "store_errors"


LABELS: Mapping[Counted, tuple[str, ...]] = {
    Counted.CAPTURES: ("audience", "outcome"),
    Counted.DELIVERED_MEMBERS: ("destination", "lane", "result"),
    Counted.RELOADS: ("outcome",),
    Counted.LOOP_ERRORS: ("loop",),
    Counted.STORE_ERRORS: ("loop",),
}


@dataclass(frozen=True, slots=True)
class Count:
    """``labels``: values in the order of ``LABELS``."""

    what: Counted
    labels: tuple[str, ...]
    value: int


class Counters:
    """Counts that only grow. Any thread may count; keys and names only, never a user."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[Counted, tuple[str, ...]]] = Counter()
        for outcome in RELOADS:
            self._add(Counted.RELOADS, outcome, by=0)

    def captured(self, audience: AudienceKey, outcome: str) -> None:
        """A capture ended: ``committed``, ``unchanged``, ``held``, ``failed``, …"""
        self._add(Counted.CAPTURES, audience, outcome)

    def delivered(self, destination: str, lane: Lane, result: str, members: int) -> None:
        """So many members were handled: ``accepted``, ``rejected`` or ``skipped``."""
        self._add(Counted.DELIVERED_MEMBERS, destination, str(lane), result, by=members)

    def reloaded(self, outcome: str) -> None:
        """The configuration was read anew: ``done``, or ``refused`` and the old one kept."""
        self._add(Counted.RELOADS, outcome)

    def loop_began(self, loop: str) -> None:
        """From now on errors of this loop are counted, beginning with none.

        Prometheus sees an increase only of what it has seen before.
        """
        self._add(Counted.LOOP_ERRORS, loop, by=0)
        self._add(Counted.STORE_ERRORS, loop, by=0)

    def loop_failed(self, loop: str) -> None:
        """An error that a loop did not expect; it goes on."""
        self._add(Counted.LOOP_ERRORS, loop)

    def store_failed(self, loop: str) -> None:
        """A turn of a loop came to nothing since the store could not be read or written."""
        self._add(Counted.STORE_ERRORS, loop)

    def read(self) -> list[Count]:
        with self._lock:
            counts = list(self._counts.items())
        return [Count(what, labels, value) for (what, labels), value in sorted(counts)]

    def _add(self, what: Counted, *labels: str, by: int = 1) -> None:
        with self._lock:
            self._counts[what, labels] += by
