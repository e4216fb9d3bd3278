"""Which audiences a destination has something to be told of, and nobody tells it yet."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Subquery, and_, exists, func, or_, select

from audience_sync.domain.audience import AudienceKey, Kind, Seq
from audience_sync.domain.span import SpanKind, SpanState
from audience_sync.pipeline.ports.delivering import Waiting
from audience_sync.store.pair import of_pair
from audience_sync.store.resyncs import captured_since_request
from audience_sync.store.schema import (
    audience,
    destination,
    rejection,
    resync,
    snapshot,
    span,
    told,
)


def waiting_in(
    connection: Connection, destination_name: str, keys: Collection[AudienceKey]
) -> list[Waiting]:
    known = select(destination.c.id).where(destination.c.name == destination_name)
    has_open = select(span.c.audience_id).where(span.c.destination_id.in_(known), unfinished())
    newest = newest_snapshots()
    here = known.scalar_subquery()
    query = (
        select(
            audience.c.key,
            audience.c.kind,
            told.c.told_seq,
            newest.c.seq,
            newest.c.members,
            resync.c.audience_id.is_not(None).label("anew"),
        )
        .join(newest, newest.c.audience_id == audience.c.id)
        .outerjoin(told, of_pair(told, audience.c.id, here))
        .outerjoin(resync, of_pair(resync, audience.c.id, here))
        .where(audience.c.key.in_(keys), audience.c.id.not_in(has_open))
        .where(or_(resync.c.audience_id.is_(None), captured_since_request()))
        .where(
            or_(
                told.c.told_seq.is_(None),
                told.c.told_seq < newest.c.seq,
                resync.c.audience_id.is_not(None),
                _retry_asked(here),
            )
        )
        .order_by(audience.c.key)
    )
    return [_waiting(row) for row in connection.execute(query)]


def unfinished() -> ColumnElement[bool]:
    return span.c.state.in_([SpanState.OPEN, SpanState.HELD])


def newest_snapshots() -> Subquery:
    """``audience_id``, ``seq`` and ``members`` of the newest snapshot of each audience."""
    top = (
        select(snapshot.c.audience_id, func.max(snapshot.c.seq).label("seq"))
        .where(snapshot.c.state == "current")
        .group_by(snapshot.c.audience_id)
        .subquery()
    )
    same = and_(snapshot.c.audience_id == top.c.audience_id, snapshot.c.seq == top.c.seq)
    query = select(snapshot.c.audience_id, snapshot.c.seq, snapshot.c.members)
    return query.join(top, same).where(snapshot.c.state == "current").subquery()


def _retry_asked(destination_id: Any) -> ColumnElement[bool]:
    return exists().where(
        of_pair(rejection, audience.c.id, destination_id),
        rejection.c.retry_at.is_not(None),
        rejection.c.retried_in.is_(None),
        rejection.c.resolved_in.is_(None),
    )


def _waiting(row: Row[Any]) -> Waiting:
    kind = SpanKind.INITIAL if row.told_seq is None else SpanKind.INCREMENTAL
    return Waiting(
        audience=AudienceKey(row.key),
        audience_kind=Kind(row.kind),
        kind=SpanKind.RESYNC if row.anew else kind,
        told_seq=None if row.told_seq is None else Seq(row.told_seq),
        to_seq=Seq(row.seq),
        members=row.members,
    )
