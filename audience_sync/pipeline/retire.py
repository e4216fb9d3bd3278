"""Retire an audience: everybody leaves by an explicit order, past the guard, and it is closed."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Protocol

from audience_sync.domain.audience import Audience, AudienceKey, OnRetire
from audience_sync.domain.guard import Limits, Verdict
from audience_sync.pipeline.capture import capture_of, examine
from audience_sync.pipeline.ports.capturing import Snapshots
from audience_sync.pipeline.ports.leases import Lease
from audience_sync.pipeline.ports.reading import Engine, Source


class RetirementBook(Protocol):
    """What retiring asks of the store beyond a capture."""

    def retire(
        self, audience: AudienceKey, staged: int | None, on_retire: OnRetire, lease: Lease
    ) -> None:
        """Close the audience, with the staged snapshot of nobody, in one transaction."""


def retire(
    audience: Audience,
    *,
    on_retire: OnRetire,
    nobody: Source,
    engine: Engine,
    snapshots: Snapshots,
    book: RetirementBook,
    lease: Lease,
    now: datetime,
) -> int:
    """Close ``audience`` for good; how many members are told that they have left.

    With ``tell_false`` a snapshot of nobody follows the last one, and is told like any other.

    Args:
        nobody: a source without rows, with the columns of the last snapshot.
    """
    current = snapshots.current(audience.key)
    if on_retire is OnRetire.LEAVE or current is None or not current.counts.members:
        book.retire(audience.key, None, on_retire, lease)
        return 0
    cycle_time = max(now, current.captured_at)
    with examine(
        audience,
        source=nobody,
        engine=engine,
        snapshots=snapshots,
        limits=Limits(),
        cycle_time=cycle_time,
    ) as examined:
        ordered = replace(examined, verdict=Verdict(reasons=()))
        capture = replace(capture_of(ordered, cycle_time), query_hash=current.query_hash)
        comparison = examined.comparison
        staged = snapshots.stage(
            capture, changes=comparison.changes(), base=comparison.members(), lease=lease
        )
        book.retire(audience.key, staged, on_retire, lease)
        return comparison.counts.exited
