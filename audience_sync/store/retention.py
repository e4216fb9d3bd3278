"""What of an audience's log is still needed, and the removal of the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, delete, select

from audience_sync.domain.audience import AudienceKey
from audience_sync.pipeline.ports.leases import Lease
from audience_sync.store import chunks
from audience_sync.store.engine import Database
from audience_sync.store.gone import UNFINISHED, release
from audience_sync.store.old_runs import forget_runs
from audience_sync.store.pair import Pair
from audience_sync.store.rejections import forget_resolved
from audience_sync.store.schema import audience, chunk, gone, snapshot, span, told
from audience_sync.store.walks import set_told, told_points


def prune(
    database: Database, key: AudienceKey, *, keep: timedelta, now: datetime, lease: Lease
) -> int:
    """Remove bases and changes that nothing needs; how many snapshots gave something up.

    Kept: the newest base, the base that an open walk of the whole audience reads, and every
    change after the oldest of: what a destination was told (whole, or in part by a span that was
    abandoned since), where an open span starts or (for a whole walk) ends, the first snapshot
    captured within ``keep``. Destinations that are gone for longer pin nothing.
    """
    keep_since = now - keep
    with database.write(lease) as connection:
        # A span that is being opened locks the row too, so its pins are seen or it sees us.
        owner = connection.scalar(
            select(audience.c.id).where(audience.c.key == key).with_for_update()
        )
        if owner is None:
            return 0
        release(connection, owner, keep_since, now)
        forget_resolved(connection, owner, keep_since)
        forget_runs(connection, owner, keep_since)
        mine = snapshot.c.audience_id == owner, snapshot.c.state == "current"
        rows = connection.execute(
            select(snapshot.c.id, snapshot.c.seq, snapshot.c.has_base, snapshot.c.captured_at)
            .where(*mine)
            .order_by(snapshot.c.seq)
        ).all()
        open_spans = connection.execute(
            select(span.c.from_seq, span.c.to_seq).where(span.c.audience_id == owner, UNFINISHED)
        ).all()
        pins = list(_told_seqs(connection, owner))
        with_changes = set(
            connection.scalars(
                select(chunk.c.snapshot_id)
                .join(snapshot)
                .where(*mine, chunk.c.part == chunks.CHANGES)
                .distinct()
            )
        )
        if not any(row.has_base for row in rows):
            return 0
        kept_bases, oldest = _needed(rows, open_spans, pins, keep_since)
        _let_go(connection, owner, oldest)
        drop_bases = [row.id for row in rows if row.has_base and row.seq not in kept_bases]
        drop_changes = [row.id for row in rows if row.seq <= oldest and row.id in with_changes]
        for snapshot_id in drop_bases:
            _drop_base(connection, snapshot_id)
        for snapshot_id in drop_changes:
            _drop(connection, snapshot_id, chunks.CHANGES)
        return len({*drop_bases, *drop_changes})


def _needed(
    rows: Sequence[Any],
    open_spans: Sequence[Any],
    told_seqs: Sequence[int],
    keep_since: datetime,
) -> tuple[set[int], int]:
    """The bases to keep, and the snapshot after which all changes are kept."""
    bases = [row.seq for row in rows if row.has_base]
    walked = [s.to_seq for s in open_spans if s.from_seq == 0]
    kept_bases = {max(bases)}
    kept_bases |= {max((b for b in bases if b <= to), default=min(bases)) for to in walked}
    recent = [row.seq for row in rows if row.captured_at >= keep_since]
    starts = [s.from_seq or s.to_seq for s in open_spans]
    return kept_bases, min([*kept_bases, *told_seqs, *starts, *recent[:1]])


def _told_seqs(connection: Connection, owner: int) -> Iterator[int]:
    """By destination, the snapshots of which it was told."""
    released = _released(owner)
    told_to = select(told.c.destination_id).where(told.c.audience_id == owner)
    begun_at = select(span.c.destination_id).where(span.c.audience_id == owner)
    for place in set(connection.scalars(told_to.union(begun_at))) - set(
        connection.scalars(released)
    ):
        yield from connection.scalars(told_points(Pair(owner, place)))


def _let_go(connection: Connection, owner: int, oldest: int) -> None:
    """Pairs that pin nothing any more are known to have heard of what is still kept, at most.

    Should they come back, nobody knows who left before.
    """
    for place in connection.scalars(_released(owner)).all():
        pair = Pair(owner, place)
        if any(seq < oldest for seq in connection.scalars(told_points(pair)).all()):
            set_told(connection, pair, oldest)


def _released(owner: int) -> Select[int]:
    of_owner = gone.c.audience_id == owner, gone.c.released_at.is_not(None)
    return select(gone.c.destination_id).where(*of_owner)


def _drop_base(connection: Connection, snapshot_id: int) -> None:
    connection.execute(snapshot.update().where(snapshot.c.id == snapshot_id).values(has_base=False))
    _drop(connection, snapshot_id, chunks.BASE)


def _drop(connection: Connection, snapshot_id: int, part: str) -> None:
    connection.execute(
        delete(chunk).where(chunk.c.snapshot_id == snapshot_id, chunk.c.part == part)
    )
