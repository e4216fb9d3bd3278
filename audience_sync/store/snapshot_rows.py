"""Rows of the table ``snapshot``, and what they mean."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, Select, select

from audience_sync.domain.audience import AudienceKey, Columns, ColumnType, Seq
from audience_sync.domain.guard import Counts
from audience_sync.pipeline.ports.capturing import Snapshot
from audience_sync.store.schema import audience, snapshot


def snapshots_in(key: AudienceKey | None, state: str) -> Select[Any]:
    query = select(snapshot, audience.c.key).join(audience).where(snapshot.c.state == state)
    return query if key is None else query.where(audience.c.key == key)


def snapshot_of(row: Row[Any]) -> Snapshot:
    return Snapshot(
        id=row.id,
        audience=AudienceKey(row.key),
        seq=Seq(row.seq),
        captured_at=row.captured_at,
        columns=columns_of(row),
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


def columns_of(row: Row[Any]) -> Columns:
    # A list of pairs: JSON objects promise no order, and columns are compared by position.
    return {name: ColumnType(kind) for name, kind in row.columns}
