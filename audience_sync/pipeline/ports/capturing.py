"""What a capture needs of the store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from audience_sync.domain.audience import AudienceKey, Columns, Kind, Seq
from audience_sync.domain.forgotten import Forgotten
from audience_sync.domain.guard import Counts, Window
from audience_sync.pipeline.ports.leases import Lease
from audience_sync.pipeline.ports.reading import Batches, Membership, Refused


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A stored snapshot, current or held."""

    id: int
    audience: AudienceKey
    seq: Seq
    """For a held one: the number it will get when it is approved."""
    captured_at: datetime
    columns: Columns
    counts: Counts
    plan_id: str
    query_hash: str
    held_for: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Capture:
    """What one capture found, ready to be recorded."""

    audience: AudienceKey
    name: str
    kind: Kind
    cycle_time: datetime
    next_due: datetime
    from_seq: Seq
    columns: Columns
    counts: Counts
    refused: Refused
    plan_id: str
    query_hash: str
    held_for: tuple[str, ...] = ()


class Snapshots(Protocol):
    """Consumed by capture."""

    def current(self, audience: AudienceKey) -> Snapshot | None: ...

    def membership(self, audience: AudienceKey, seq: Seq) -> Membership: ...

    def forgotten(self) -> Forgotten | None:
        """Who asked to be forgotten by now; ``None``: nobody did."""

    def changed_since_base(self, audience: AudienceKey) -> tuple[int, int]:
        """Rows of changes since the newest base, and members of that base."""

    def window(self, audience: AudienceKey, cycle_time: datetime) -> Window: ...

    def unchanged(self, capture: Capture, lease: Lease, *, started_at: datetime) -> None:
        """Record a capture that found nothing new; held captures are discarded by it."""

    def stage(
        self, capture: Capture, *, changes: Batches | None, base: Batches | None, lease: Lease
    ) -> int:
        """Write chunks that nobody sees yet; the id to ``commit``."""

    def commit(self, staged: int, lease: Lease, *, started_at: datetime) -> Snapshot:
        """Make the staged chunks, their snapshot and their run visible at once.

        A capture with ``held_for`` becomes a held snapshot, any other the current one.
        """
