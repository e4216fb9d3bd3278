"""An audience's log without a few users: its chunks, and the counts that are checked by them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, Row, and_, delete, func, select, update

from audience_sync.domain.forgotten import Kept, Was, memberships, without
from audience_sync.domain.guard import Counts
from audience_sync.errors import ChunkDamaged
from audience_sync.store import chunks
from audience_sync.store.schema import chunk, snapshot
from audience_sync.store.traces import ChunkTrace, Traces, is_one_of

Named = Mapping[tuple[int, str], Mapping[str, Was]]
"""By snapshot and part, the users whom its chunks name."""


def rewrite(connection: Connection, traces: Traces, user_ids: Collection[str]) -> None:
    """Make every log what it would be, had the users never been there.

    Raises:
        StoreFailed: a chunk is damaged, or a base is missing.
    """
    named: dict[tuple[int, str], dict[str, Was]] = defaultdict(dict)
    for trace in traces.chunks:
        named[trace.snapshot_id, trace.part] |= trace.users
    for owner in sorted(traces.audience_ids):
        _correct_counts(connection, owner, named, user_ids)
    for trace in traces.chunks:
        _rewrite_chunk(connection, trace)


def _correct_counts(
    connection: Connection, owner: int, named: Named, user_ids: Collection[str]
) -> None:
    log = _snapshots(connection, owner, "current")
    held = _snapshots(connection, owner, "held")
    whole = _stored_changes(connection, owner)
    counts = {row.id: _counts(row) for row in (*log, *held)}
    for user_id in user_ids:
        kept = [_kept(row, whole, named, user_id) for row in log]
        for row, was in zip(log, _memberships(kept), strict=True):
            if was is not None:
                counts[row.id] = without(counts[row.id], was)
            state = was.after if was is not None else False
        for row in held:
            # What is held follows the newest snapshot.
            change = named.get((row.id, chunks.CHANGES), {}).get(user_id)
            was = change or Was(before=state, after=state, named=False)
            counts[row.id] = without(counts[row.id], was)
    for row in (*log, *held):
        if counts[row.id] != _counts(row):
            _store_counts(connection, row.id, counts[row.id])


def _memberships(kept: Sequence[Kept]) -> list[Was | None]:
    try:
        return memberships(kept)
    except ValueError:
        raise ChunkDamaged(
            "no base of an audience is kept", hint="restore the store from a backup"
        ) from None


def _snapshots(connection: Connection, owner: int, state: str) -> Sequence[Row[Any]]:
    query = select(snapshot).where(snapshot.c.audience_id == owner, snapshot.c.state == state)
    return connection.execute(query.order_by(snapshot.c.seq, snapshot.c.id)).all()


def _stored_changes(connection: Connection, owner: int) -> dict[int, int]:
    """By snapshot, rows of changes that are stored."""
    query = (
        select(chunk.c.snapshot_id, func.sum(chunk.c.rows))
        .join(snapshot)
        .where(snapshot.c.audience_id == owner, chunk.c.part == chunks.CHANGES)
        .group_by(chunk.c.snapshot_id)
    )
    return {row[0]: int(row[1]) for row in connection.execute(query)}


def _counts(row: Row[Any]) -> Counts:
    return Counts(
        previous=row.previous,
        entered=row.entered,
        exited=row.exited,
        updated=row.updated,
        members=row.members,
    )


def _kept(row: Row[Any], stored: Mapping[int, int], named: Named, user_id: str) -> Kept:
    in_base = user_id in named.get((row.id, chunks.BASE), {})
    return Kept(
        from_nobody=row.previous == 0,
        whole=stored.get(row.id, 0) == row.entered + row.exited + row.updated,
        in_base=in_base if row.has_base else None,
        change=named.get((row.id, chunks.CHANGES), {}).get(user_id),
    )


def _store_counts(connection: Connection, snapshot_id: int, counts: Counts) -> None:
    connection.execute(
        update(snapshot)
        .where(snapshot.c.id == snapshot_id)
        .values(
            previous=counts.previous,
            entered=counts.entered,
            exited=counts.exited,
            updated=counts.updated,
            members=counts.members,
        )
    )


def _rewrite_chunk(connection: Connection, trace: ChunkTrace) -> None:
    here = and_(
        chunk.c.snapshot_id == trace.snapshot_id,
        chunk.c.part == trace.part,
        chunk.c.ordinal == trace.ordinal,
    )
    payload = connection.execute(select(chunk.c.payload).where(here)).scalar_one()
    batch = chunks.decode(payload)
    rest: pa.RecordBatch = batch.filter(pc.invert(is_one_of(batch, list(trace.users))))
    if rest.num_rows:
        connection.execute(update(chunk).where(here).values(chunks.content(rest)))
    else:
        connection.execute(delete(chunk).where(here))
