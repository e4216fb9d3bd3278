"""Capture audiences one after another, each under its lease. Knows no lane, no destination."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from audience_sync.domain.audience import Audience, AudienceKey, OnRetire, State
from audience_sync.domain.guard import Limits
from audience_sync.domain.schedule import Cadence, is_due
from audience_sync.errors import (
    AudienceSyncError,
    ChunkDamaged,
    Held,
    LeaseTaken,
    SourceFailed,
)
from audience_sync.pipeline.capture import Captured, check_planned, commit, examine
from audience_sync.pipeline.ports.capturing import Snapshots
from audience_sync.pipeline.ports.leases import Lease, Leases
from audience_sync.pipeline.ports.reading import Engine, Source


@dataclass(frozen=True, kw_only=True, slots=True)
class Configured:
    """An audience with what the configuration says of its cycle."""

    audience: Audience
    source: Source
    limits: Limits
    cadence: Cadence
    state: State = State.ACTIVE
    on_retire: OnRetire = OnRetire.TELL_FALSE
    explicit_key: bool = False
    """The trait key was chosen, not made of the name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptureOutcome:
    """``outcome``: ``committed``, ``unchanged``, ``held``, ``refused``, ``failed``, ``leased``,
    ``other plan``, ``not due``, or that of an ``Admission``."""

    audience: AudienceKey
    outcome: str
    captured: Captured | None = None
    error: AudienceSyncError | None = None
    why: str | None = None
    """Of one that is left out, and nothing is wrong: who or what wants it so."""
    ends: str | None = None
    """The command or edit that ends that."""


class CaptureBook(Snapshots, Protocol):
    """What a capture cycle asks of the store beyond one capture."""

    def last_captured(self, audience: AudienceKey) -> datetime | None: ...

    def next_due(self, audience: AudienceKey) -> datetime | None: ...

    def left_alone(self, audience: AudienceKey) -> str | None:
        """``paused`` or ``retired``, where a person has ordered so."""

    def sweep(self, audience: AudienceKey, lease: Lease) -> None: ...

    def failed(
        self,
        audience: Audience,
        cycle_time: datetime,
        error: str,
        lease: Lease,
        *,
        started_at: datetime,
    ) -> None: ...

    def prune(self, audience: AudienceKey, now: datetime, lease: Lease) -> int: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Captures:
    """Captures audiences one after another, each under its lease."""

    snapshots: CaptureBook
    engine: Engine
    leases: Leases
    clock: Callable[[], datetime]
    draw: Callable[[], float]

    def due(self, configured: Configured, now: datetime) -> bool:
        key = configured.audience.key
        return is_due(
            now,
            last=self.snapshots.last_captured(key),
            due=self.snapshots.next_due(key),
            clock=self.clock(),
        )

    def overtaken(self, configured: Configured, cycle_time: datetime) -> bool:
        """Whether another run has captured for a later time than ``cycle_time``.

        To capture now would tell older states after newer ones (P6). When the clock went back,
        the last capture lies in the future instead, and order is by snapshot alone.
        """
        last = self.snapshots.last_captured(configured.audience.key)
        return last is not None and cycle_time < last <= self.clock()

    def capture(
        self,
        configured: Configured,
        cycle_time: datetime,
        *,
        plans: Collection[str] = (),
        only_if_due: bool = False,
    ) -> CaptureOutcome:
        """Capture one audience. What goes wrong is in the outcome: others are not stopped by it.

        Raises:
            StoreFailed, LeaseLost: nothing can be written now.
        """
        key = configured.audience.key
        try:
            with self.leases.hold(f"capture:{key}") as lease:
                # Another process may have captured it since we looked, or a person retired it.
                if ordered := self.snapshots.left_alone(key):
                    return CaptureOutcome(audience=key, outcome=ordered)
                late = self.overtaken(configured, cycle_time)
                if late or (only_if_due and not self.due(configured, cycle_time)):
                    return CaptureOutcome(audience=key, outcome="not due")
                self.snapshots.sweep(key, lease)
                captured = self._capture(configured, cycle_time, plans, lease)
                self.snapshots.prune(key, self.clock(), lease)
        except LeaseTaken as error:
            return CaptureOutcome(audience=key, outcome="leased", error=error)
        except Held as error:
            return CaptureOutcome(audience=key, outcome="other plan", error=error)
        except ChunkDamaged as error:
            return CaptureOutcome(audience=key, outcome="failed", error=error)
        except SourceFailed as error:
            outcome = "failed" if error.exit_code == SourceFailed.exit_code else "refused"
            return CaptureOutcome(audience=key, outcome=outcome, error=error)
        return CaptureOutcome(audience=key, outcome=captured.outcome, captured=captured)

    def _capture(
        self,
        configured: Configured,
        cycle_time: datetime,
        plans: Collection[str],
        lease: Lease,
    ) -> Captured:
        audience, started_at = configured.audience, self.clock()
        try:
            with examine(
                audience,
                source=configured.source,
                engine=self.engine,
                snapshots=self.snapshots,
                limits=configured.limits,
                cycle_time=cycle_time,
            ) as examined:
                check_planned(examined, plans)
                return commit(
                    examined,
                    snapshots=self.snapshots,
                    lease=lease,
                    next_due=configured.cadence.next_after(cycle_time, self.draw()),
                    started_at=started_at,
                )
        except (SourceFailed, ChunkDamaged) as error:
            self.snapshots.failed(audience, cycle_time, str(error), lease, started_at=started_at)
            raise
