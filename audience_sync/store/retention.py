"""What of an audience's log is still needed, and the removal of the rest."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, select

from audience_sync.domain.audience import AudienceKey
from audience_sync.domain.span import SpanState
from audience_sync.pipeline.ports import Lease
from audience_sync.store import chunks
from audience_sync.store.engine import Database
from audience_sync.store.schema import audience, chunk, snapshot, span, told

OPEN = span.c.state.in_([SpanState.OPEN, SpanState.HELD])


def prune(database: Database, key: AudienceKey, keep_since: datetime, lease: Lease) -> int:
    """Remove bases and changes that nothing needs; how many snapshots gave something up.

    Kept: the newest base, the base that an open walk of the whole audience reads, and every
    change after the oldest of: what a destination was told, where an open span starts or (for
    a whole walk) ends, the first snapshot captured since ``keep_since``.
    """
    with database.write(lease) as connection:
        # A span that is being opened locks the row too, so its pins are seen or it sees us.
        owner = connection.scalar(
            select(audience.c.id).where(audience.c.key == key).with_for_update()
        )
        mine = snapshot.c.audience_id == owner, snapshot.c.state == "current"
        rows = connection.execute(
            select(snapshot.c.id, snapshot.c.seq, snapshot.c.has_base, snapshot.c.captured_at)
            .where(*mine)
            .order_by(snapshot.c.seq)
        ).all()
        open_spans = connection.execute(
            select(span.c.from_seq, span.c.to_seq).where(span.c.audience_id == owner, OPEN)
        ).all()
        told_seqs = connection.scalars(
            select(told.c.told_seq).where(told.c.audience_id == owner)
        ).all()
        with_changes = set(
            connection.scalars(
                select(chunk.c.snapshot_id)
                .join(snapshot)
                .where(*mine, chunk.c.part == chunks.CHANGES)
                .distinct()
            )
        )
        bases = [row.seq for row in rows if row.has_base]
        if not bases:
            return 0
        walked = [s.to_seq for s in open_spans if s.from_seq == 0]
        kept_bases = {max(bases)} | {
            max((b for b in bases if b <= to), default=min(bases)) for to in walked
        }
        recent = [row.seq for row in rows if row.captured_at >= keep_since]
        pins = [max(bases), *told_seqs, *(s.from_seq or s.to_seq for s in open_spans), *recent[:1]]
        pins += kept_bases
        oldest = min(pins)
        pruned = 0
        for row in rows:
            if row.has_base and row.seq not in kept_bases:
                _drop_base(connection, row.id)
                pruned += 1
            if row.seq <= oldest and row.id in with_changes:
                _drop(connection, row.id, chunks.CHANGES)
                pruned += 1
        return pruned


def _drop_base(connection: Connection, snapshot_id: int) -> None:
    connection.execute(snapshot.update().where(snapshot.c.id == snapshot_id).values(has_base=False))
    _drop(connection, snapshot_id, chunks.BASE)


def _drop(connection: Connection, snapshot_id: int, part: str) -> None:
    connection.execute(
        delete(chunk).where(chunk.c.snapshot_id == snapshot_id, chunk.c.part == part)
    )
