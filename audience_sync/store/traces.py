"""What the store's files say of a few users, wherever it stands."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, Row, Text, and_, cast, func, or_, select

from audience_sync.domain.audience import AudienceKey
from audience_sync.domain.forgotten import Was, without_names
from audience_sync.store import chunks
from audience_sync.store.engine import Database
from audience_sync.store.schema import audience, chunk, rejection, run, snapshot, span


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkTrace:
    """A chunk with rows of users: what each of them was before and after its snapshot.

    In a base everybody is a member after it; what was before is not said there.
    """

    audience_id: int
    audience: AudienceKey
    snapshot_id: int
    part: str
    ordinal: int
    users: Mapping[str, Was]


@dataclass(frozen=True, kw_only=True, slots=True)
class Traces:
    """``positions``: spans, of whatever state, that stopped exactly at one of the users.

    ``delivered``: audiences with such a span, or with a rejection of one of the users.
    """

    chunks: tuple[ChunkTrace, ...]
    rejections: int
    positions: tuple[int, ...]
    delivered: frozenset[int]

    def audiences_of(self, user_id: str) -> list[AudienceKey]:
        return sorted({trace.audience for trace in self.chunks if user_id in trace.users})

    @property
    def audience_ids(self) -> set[int]:
        return {trace.audience_id for trace in self.chunks}


def find(database: Database, user_ids: Collection[str]) -> Traces:
    """Only chunks that can hold one of the users are read, one at a time.

    Raises:
        StoreFailed: one of them is damaged.
    """
    with database.read() as connection:
        places = connection.execute(_places(user_ids)).all()
        rejected = connection.execute(
            select(span.c.audience_id, func.count())
            .join(rejection)
            .where(rejection.c.user_id.in_(user_ids))
            .group_by(span.c.audience_id)
        ).all()
        stopped = connection.execute(
            select(span.c.id, span.c.audience_id).where(span.c.position.in_(user_ids))
        ).all()
    return Traces(
        chunks=tuple(_with_users(database, places, user_ids)),
        rejections=sum(count for _, count in rejected),
        positions=tuple(span_id for span_id, _ in stopped),
        delivered=frozenset(owner for owner, _ in rejected) | {owner for _, owner in stopped},
    )


def _places(user_ids: Collection[str]) -> Any:
    """Chunks of all snapshots, held and discarded ones too, whose range covers a user."""
    covers = [and_(chunk.c.first_user_id <= u, chunk.c.last_user_id >= u) for u in user_ids]
    return (
        select(
            snapshot.c.audience_id,
            audience.c.key,
            chunk.c.snapshot_id,
            chunk.c.part,
            chunk.c.ordinal,
        )
        .select_from(chunk.join(snapshot).join(audience))
        .where(or_(*covers))
        .order_by(chunk.c.snapshot_id, chunk.c.part, chunk.c.ordinal)
    )


def _with_users(
    database: Database, places: Collection[Row[Any]], user_ids: Collection[str]
) -> Iterator[ChunkTrace]:
    for place in places:
        (batch,) = chunks.fetch(database, place.part, [(place.snapshot_id, place.ordinal)])
        rows = batch.filter(is_one_of(batch, user_ids))
        if rows.num_rows:
            yield ChunkTrace(
                audience_id=place.audience_id,
                audience=AudienceKey(place.key),
                snapshot_id=place.snapshot_id,
                part=place.part,
                ordinal=place.ordinal,
                users=dict(_was(rows, place.part)),
            )


def is_one_of(batch: pa.RecordBatch, user_ids: Collection[str]) -> pa.Array:
    return pc.is_in(batch.column(0), value_set=pa.array(user_ids, pa.string()))


def _was(rows: pa.RecordBatch, part: str) -> Iterator[tuple[str, Was]]:
    users = rows.column(0).to_pylist()
    if part == chunks.BASE:
        yield from ((user_id, Was(before=False, after=True, named=False)) for user_id in users)
        return
    flags = rows.column(1).to_pylist(), rows.column(2).to_pylist()
    for user_id, before, after in zip(users, *flags, strict=True):
        yield user_id, Was(before=before, after=after)


def named_in_orders(
    connection: Connection, names: Collection[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Orders whose reason names one of the users: the id of the run, and its counts without."""
    counts = cast(run.c.counts, Text)
    named = [counts.icontains(json.dumps(name)[1:-1], autoescape=True) for name in names]
    for row in connection.execute(select(run.c.id, run.c.counts).where(or_(*named))).all():
        reason = str(row.counts.get("reason") or "")
        if (kept := without_names(reason, names)) != reason:
            yield row.id, row.counts | {"reason": kept}
