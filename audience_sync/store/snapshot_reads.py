"""Snapshots as they are stored. Reading needs no lease."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Row, Select, func, select

from audience_sync.domain.audience import AudienceKey, Columns, ColumnType, Seq
from audience_sync.domain.guard import Counts, Window
from audience_sync.errors import UsageError
from audience_sync.pipeline.ports import Membership, Snapshot
from audience_sync.store import chunks
from audience_sync.store.engine import Database
from audience_sync.store.schema import audience, snapshot

DAY = timedelta(hours=24)


class SnapshotReads:
    """The reading half of ``pipeline.ports.Snapshots``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def current(self, key: AudienceKey) -> Snapshot | None:
        query = snapshots_in(key, "current").order_by(snapshot.c.seq.desc()).limit(1)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return snapshot_of(row) if row else None

    def last_captured(self, key: AudienceKey) -> datetime | None:
        with self._database.read() as connection:
            return connection.scalar(
                select(audience.c.last_captured_at).where(audience.c.key == key)
            )

    def next_due(self, key: AudienceKey) -> datetime | None:
        with self._database.read() as connection:
            return connection.scalar(select(audience.c.next_due).where(audience.c.key == key))

    def held(self, key: AudienceKey | None = None) -> list[Snapshot]:
        """Captures that wait for approval, newest first."""
        query = snapshots_in(key, "held").order_by(snapshot.c.id.desc())
        with self._database.read() as connection:
            return [snapshot_of(row) for row in connection.execute(query)]

    def membership(self, key: AudienceKey, seq: Seq) -> Membership:
        """The members at ``seq``, read from the newest base at or before it.

        Raises:
            UsageError: there is no such snapshot, or its base is no longer kept.
        """
        query = snapshots_in(key, "current").where(snapshot.c.seq <= seq)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(snapshot.c.seq)).all()
        start = max((i for i, row in enumerate(rows) if row.has_base), default=None)
        if start is None:
            raise UsageError(f"no snapshot {seq} of {key} is kept")
        read = partial(chunks.read, self._database)
        return Membership(
            columns=_columns(rows[-1]),
            members=rows[-1].members,
            base=partial(read, rows[start].id, chunks.BASE, rows=rows[start].members),
            changes=[
                partial(read, row.id, chunks.CHANGES, rows=row.entered + row.exited + row.updated)
                for row in rows[start + 1 :]
            ],
        )

    def changed_since_base(self, key: AudienceKey) -> tuple[int, int]:
        """Rows of changes since the newest base, and members of that base."""
        query = snapshots_in(key, "current").order_by(snapshot.c.seq.desc())
        rows = 0
        with self._database.read() as connection:
            for row in connection.execute(query):
                if row.has_base:
                    return rows, row.members
                rows += row.entered + row.exited + row.updated
        return rows, 0

    def window(self, key: AudienceKey, cycle_time: datetime) -> Window:
        """Exits of the 24 h before ``cycle_time``, and the members there were at their start."""
        seen = snapshots_in(key, "current").subquery()
        recent = seen.c.captured_at > cycle_time - DAY
        unapproved = select(func.coalesce(func.sum(seen.c.exited), 0)).where(
            recent, seen.c.approved_at.is_(None)
        )
        start = select(seen.c.members).where(~recent).order_by(seen.c.seq.desc()).limit(1)
        # Who left with approval is no longer among those of whom a share may leave.
        approved = select(func.coalesce(func.sum(seen.c.exited), 0)).where(
            recent, seen.c.approved_at.is_not(None)
        )
        # An audience that is younger than a day is measured by what it began with.
        first = select(seen.c.members).where(seen.c.members > 0).order_by(seen.c.seq).limit(1)
        with self._database.read() as connection:
            exits = int(connection.scalar(unapproved) or 0)
            members = connection.scalar(start)
            if members is None:
                members = connection.scalar(first)
            members = max((members or 0) - int(connection.scalar(approved) or 0), 0)
        return Window(members_at_start=members, unapproved_exits=exits)


def snapshots_in(key: AudienceKey | None, state: str) -> Select[Any]:
    query = select(snapshot, audience.c.key).join(audience).where(snapshot.c.state == state)
    return query if key is None else query.where(audience.c.key == key)


def snapshot_of(row: Row[Any]) -> Snapshot:
    return Snapshot(
        id=row.id,
        audience=AudienceKey(row.key),
        seq=Seq(row.seq),
        captured_at=row.captured_at,
        columns=_columns(row),
        counts=Counts(
            previous=row.previous,
            entered=row.entered,
            exited=row.exited,
            updated=row.updated,
            members=row.members,
        ),
        plan_id=row.plan_id,
        query_hash=row.query_hash,
        held_for=tuple(row.held_for),
    )


def _columns(row: Row[Any]) -> Columns:
    # A list of pairs: JSON objects promise no order, and columns are compared by position.
    return {name: ColumnType(kind) for name, kind in row.columns}
