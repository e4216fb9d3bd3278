"""Snapshots as they are stored. Reading needs no lease."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, select

from audience_sync.domain.audience import AudienceKey, Seq
from audience_sync.domain.forgotten import Forgotten
from audience_sync.domain.guard import Window
from audience_sync.pipeline.ports.capturing import Snapshot
from audience_sync.pipeline.ports.reading import Membership
from audience_sync.store.engine import Database
from audience_sync.store.forgotten import forgotten
from audience_sync.store.memberships import membership_at
from audience_sync.store.resyncs import next_due
from audience_sync.store.schema import audience, snapshot
from audience_sync.store.snapshot_rows import snapshot_of, snapshots_in

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
            return connection.scalar(select(next_due()).where(audience.c.key == key))

    def left_alone(self, key: AudienceKey) -> str | None:
        query = select(audience.c.retired_at, audience.c.paused_at).where(audience.c.key == key)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is not None and row.retired_at is not None:
            return "retired"
        return "paused" if row is not None and row.paused_at is not None else None

    def held(self, key: AudienceKey | None = None) -> list[Snapshot]:
        """Captures that wait for approval, newest first."""
        query = snapshots_in(key, "held").order_by(snapshot.c.id.desc())
        with self._database.read() as connection:
            return [snapshot_of(row) for row in connection.execute(query)]

    def membership(self, key: AudienceKey, seq: Seq) -> Membership:
        """See ``memberships.membership_at``."""
        return membership_at(self._database, key, seq)

    def forgotten(self) -> Forgotten | None:
        return forgotten(self._database)

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
