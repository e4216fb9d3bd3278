"""The slot for comparing: one capture at a time uses the memory that reading files and comparing
take.

A database computes its answer elsewhere, so a capture takes the slot when the first rows are there.
One source that hangs keeps nobody waiting for longer than it sends nothing in the middle of rows.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from audience_sync.domain.audience import Kind
from audience_sync.domain.forgotten import Forgotten
from audience_sync.errors import AudienceSyncError
from audience_sync.pipeline.ports.reading import Comparison, Engine, Membership, Source

SEEN_WITHIN = 0.5
"""Seconds until a stop is noticed while another capture is waited for."""


class SlotWithdrawn(AudienceSyncError):
    """We were told to stop before we had it; nothing was stored of the capture."""


class Slot:
    """Of a process: also of two generations, while one takes the place of the other."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    @contextmanager
    def taken(self, stop: threading.Event) -> Iterator[None]:
        """Wait for it, and have it; a thread that has it already goes on.

        Raises:
            SlotWithdrawn: ``stop`` was set before.
        """
        while not self._lock.acquire(timeout=SEEN_WITHIN):
            if stop.is_set():
                raise SlotWithdrawn("stopping")
        try:
            if stop.is_set():
                raise SlotWithdrawn("stopping")
            yield
        finally:
            self._lock.release()


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadInSlot:
    """A ``Source`` that is read with the memory of the comparison."""

    source: Source
    slot: Slot
    stop: threading.Event

    @contextmanager
    def read(self, query: str, cycle_time: datetime) -> Iterator[pa.RecordBatchReader]:
        with self.slot.taken(self.stop), self.source.read(query, cycle_time) as rows:
            yield rows


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedInSlot:
    """An ``Engine``."""

    engine: Engine
    slot: Slot
    stop: threading.Event

    @contextmanager
    def compare(
        self,
        previous: Membership | None,
        rows: pa.RecordBatchReader,
        *,
        reserved: str,
        kind: Kind = Kind.AUDIENCE,
        forgotten: Forgotten | None = None,
    ) -> Iterator[Comparison]:
        with (
            self.slot.taken(self.stop),
            self.engine.compare(
                previous, rows, reserved=reserved, kind=kind, forgotten=forgotten
            ) as comparison,
        ):
            yield comparison
