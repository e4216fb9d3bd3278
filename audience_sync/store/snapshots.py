"""Snapshots staged, made visible at once, held and approved (P1, P11).

Everything here is written under the capture lease of the audience.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, insert, select, update

from audience_sync.domain.audience import Audience, AudienceKey
from audience_sync.errors import UsageError
from audience_sync.pipeline.ports.capturing import Capture, Snapshot
from audience_sync.pipeline.ports.leases import Lease
from audience_sync.pipeline.ports.reading import Batches
from audience_sync.store import chunks
from audience_sync.store.engine import Database
from audience_sync.store.ids import audience_id, known_audience_id
from audience_sync.store.retention import prune
from audience_sync.store.schema import audience, chunk, run, snapshot
from audience_sync.store.snapshot_reads import SnapshotReads
from audience_sync.store.snapshot_rows import snapshot_of, snapshots_in

HELD_KEPT = 5
"""Held captures of an audience that can still be approved; older ones are discarded."""


class Snapshots(SnapshotReads):
    """See ``pipeline.ports.Snapshots``."""

    def __init__(
        self, database: Database, clock: Callable[[], datetime], keep: timedelta = timedelta(30)
    ) -> None:
        super().__init__(database)
        self._clock = clock
        self._keep = keep

    def sweep(self, key: AudienceKey, lease: Lease) -> None:
        """Remove what a killed capture staged. The lease says that nobody is staging now."""
        for row_id in self._ids(snapshots_in(key, "staged")):
            chunks.remove(self._database, row_id, lease)
            with self._database.write(lease) as connection:
                connection.execute(delete(snapshot).where(snapshot.c.id == row_id))

    def stage(
        self, capture: Capture, *, changes: Batches | None, base: Batches | None, lease: Lease
    ) -> int:
        with self._database.write(lease) as connection:
            owner = audience_id(connection, capture.audience, capture.name, capture.kind)
            staged = connection.execute(
                insert(snapshot).values(
                    audience_id=owner,
                    state="staged",
                    has_base=base is not None,
                    **_values(capture),
                )
            ).inserted_primary_key
        assert staged is not None
        snapshot_id = int(staged[0])
        for part, batches in ((chunks.CHANGES, changes), (chunks.BASE, base)):
            if batches is not None:
                chunks.write(self._database, snapshot_id, part, batches, lease)
        return snapshot_id

    def commit(self, staged: int, lease: Lease, *, started_at: datetime) -> Snapshot:
        with self._database.write(lease) as connection:
            row = connection.execute(select(snapshot).where(snapshot.c.id == staged)).one()
            state = "held" if row.held_for else "current"
            connection.execute(update(snapshot).where(snapshot.c.id == staged).values(state=state))
            self._record(connection, row, state, started_at)
            if state == "current":
                discard_held(connection, row.audience_id, keep=0)
            else:
                discard_held(connection, row.audience_id, keep=HELD_KEPT)
            query = snapshots_in(None, state).where(snapshot.c.id == staged)
            return snapshot_of(connection.execute(query).one())

    def unchanged(self, capture: Capture, lease: Lease, *, started_at: datetime) -> None:
        with self._database.write(lease) as connection:
            owner = audience_id(connection, capture.audience, capture.name, capture.kind)
            connection.execute(
                update(audience).where(audience.c.id == owner).values(_captured(capture))
            )
            connection.execute(
                insert(run).values(
                    **self._run(owner, capture.cycle_time, started_at, "unchanged"),
                    counts=_run_counts(_values(capture)),
                )
            )
            discard_held(connection, owner, keep=0)

    def failed(
        self,
        failed: Audience,
        cycle_time: datetime,
        error: str,
        lease: Lease,
        *,
        started_at: datetime,
    ) -> None:
        """Record a capture that failed. The snapshot stays, and so does what is due."""
        with self._database.write(lease) as connection:
            owner = audience_id(connection, failed.key, failed.name, failed.kind)
            connection.execute(
                update(audience).where(audience.c.id == owner).values(last_error=error)
            )
            connection.execute(
                insert(run).values(
                    **self._run(owner, cycle_time, started_at, "failed"), counts={}, error=error
                )
            )

    def prune(self, key: AudienceKey, now: datetime, lease: Lease) -> int:
        """Remove what is older than ``keep`` and needed by nobody."""
        return prune(self._database, key, keep=self._keep, now=now, lease=lease)

    def approve(self, held: Snapshot, lease: Lease, *, reason: str | None, actor: str) -> None:
        """Make exactly this held capture the current snapshot; the others are discarded.

        Raises:
            UsageError: it is no longer held.
        """
        with self._database.write(lease) as connection:
            waiting = snapshot.c.id == held.id, snapshot.c.state == "held"
            approved = connection.execute(
                update(snapshot).where(*waiting).values(state="current", approved_at=self._clock())
            )
            if not approved.rowcount:
                raise UsageError(f"{held.plan_id} is no longer held")
            owner = known_audience_id(connection, held.audience)
            discard_held(connection, owner, keep=0)
            self._ordered(connection, held, "approved", reason, actor)

    def discard(self, held: Snapshot, lease: Lease, *, reason: str | None, actor: str) -> None:
        """Drop this held capture.

        Raises:
            UsageError: it is no longer held; one that was approved meanwhile stays.
        """
        with self._database.write(lease) as connection:
            state = connection.scalar(select(snapshot.c.state).where(snapshot.c.id == held.id))
            if state != "held":
                raise UsageError(f"{held.plan_id} is no longer held")
            _discard(connection, [held.id])
            self._ordered(connection, held, "discarded", reason, actor)

    def _ordered(
        self, connection: Connection, held: Snapshot, outcome: str, reason: str | None, actor: str
    ) -> None:
        """An operator's order is part of the audience's history."""
        owner = known_audience_id(connection, held.audience)
        ordered = self._run(owner, held.captured_at, self._clock(), outcome) | {
            "kind": "approve",
            "actor": actor,
        }
        counts = {"plan": held.plan_id, "reason": reason}
        connection.execute(insert(run).values(**ordered, snapshot_id=held.id, counts=counts))

    def _ids(self, query: Select[Any]) -> list[int]:
        with self._database.read() as connection:
            return [row.id for row in connection.execute(query)]

    def _record(
        self, connection: Connection, row: Row[Any], state: str, started_at: datetime
    ) -> None:
        connection.execute(
            update(audience)
            .where(audience.c.id == row.audience_id)
            .values(last_captured_at=row.captured_at, next_due=row.next_due, last_error=None)
        )
        outcome = "held" if state == "held" else "committed"
        connection.execute(
            insert(run).values(
                **self._run(row.audience_id, row.captured_at, started_at, outcome),
                snapshot_id=row.id,
                counts=_run_counts(row._mapping),
            )
        )

    def _run(
        self, owner: int, cycle_time: datetime, started_at: datetime, outcome: str
    ) -> dict[str, Any]:
        return {
            "kind": "capture",
            "audience_id": owner,
            "cycle_time": cycle_time,
            "started_at": started_at,
            "ended_at": self._clock(),
            "outcome": outcome,
        }


def _values(capture: Capture) -> dict[str, Any]:
    counts = capture.counts
    return {
        "seq": capture.from_seq + 1,
        "captured_at": capture.cycle_time,
        "next_due": capture.next_due,
        "columns": [[name, str(kind)] for name, kind in capture.columns.items()],
        "previous": counts.previous,
        "entered": counts.entered,
        "exited": counts.exited,
        "updated": counts.updated,
        "members": counts.members,
        "rows_read": capture.refused.rows,
        "refused": dict(capture.refused.by_reason),
        "duplicates": capture.refused.duplicates,
        "plan_id": capture.plan_id,
        "query_hash": capture.query_hash,
        "held_for": list(capture.held_for),
    }


def _captured(capture: Capture) -> dict[str, Any]:
    return {
        "last_captured_at": capture.cycle_time,
        "next_due": capture.next_due,
        "last_error": None,
    }


def _run_counts(values: Any) -> dict[str, Any]:
    names = ("entered", "exited", "updated", "members", "rows_read", "refused", "duplicates")
    return {name: values[name] for name in names}


def discard_held(connection: Connection, owner: int, *, keep: int) -> None:
    """Discard an audience's held captures but for the newest ``keep``."""
    held = select(snapshot.c.id).where(snapshot.c.audience_id == owner, snapshot.c.state == "held")
    ids = connection.scalars(held.order_by(snapshot.c.id.desc()).offset(keep)).all()
    _discard(connection, ids)


def _discard(connection: Connection, ids: Sequence[int]) -> None:
    if ids:
        connection.execute(delete(chunk).where(chunk.c.snapshot_id.in_(ids)))
        connection.execute(update(snapshot).where(snapshot.c.id.in_(ids)).values(state="discarded"))
