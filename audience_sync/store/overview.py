"""Where everything stands, for ``status``: a few queries, whatever the number of audiences."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, func, select

from audience_sync.domain.audience import AudienceKey, Kind, Seq
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Books, SpanState
from audience_sync.store.engine import Database
from audience_sync.store.resyncs import next_due
from audience_sync.store.schema import audience, destination, resync, snapshot, span, told
from audience_sync.store.waiting import newest_snapshots


@dataclass(frozen=True, kw_only=True, slots=True)
class AudienceState:
    """An audience the store knows; ``seq`` 0: never captured."""

    key: AudienceKey
    name: str
    kind: Kind
    members: int
    seq: Seq
    captured_at: datetime | None
    next_due: datetime | None
    last_error: str | None
    paused_at: datetime | None
    retired_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryState:
    """One audience at one destination; state, books and the rest are those of the newest span."""

    span_id: int
    audience: AudienceKey
    destination: str
    told_seq: Seq | None
    lane: Lane
    state: SpanState
    held_for: str | None
    to_seq: Seq
    plan_id: str
    books: Books
    ended_at: datetime | None


def audiences(database: Database) -> dict[AudienceKey, AudienceState]:
    """Every audience that was ever captured, or tried to be."""
    newest = newest_snapshots()
    about = audience, newest.c.members, newest.c.seq, next_due().label("due")
    query = select(*about).outerjoin(newest, newest.c.audience_id == audience.c.id)
    with database.read() as connection:
        states = [_audience(row) for row in connection.execute(query)]
    return {state.key: state for state in states}


def deliveries(database: Database) -> list[DeliveryState]:
    """One for each audience and destination that ever had a span."""
    newest = (
        select(span.c.audience_id, span.c.destination_id, func.max(span.c.number).label("number"))
        .group_by(span.c.audience_id, span.c.destination_id)
        .subquery()
    )
    of_newest = and_(
        newest.c.audience_id == span.c.audience_id,
        newest.c.destination_id == span.c.destination_id,
        newest.c.number == span.c.number,
    )
    pinned = and_(
        snapshot.c.audience_id == span.c.audience_id,
        snapshot.c.seq == span.c.to_seq,
        snapshot.c.state == "current",
    )
    of_span = and_(
        told.c.audience_id == span.c.audience_id, told.c.destination_id == span.c.destination_id
    )
    query = (
        select(span, audience.c.key, destination.c.name, told.c.told_seq, snapshot.c.plan_id)
        .join(newest, of_newest)
        .join(audience, audience.c.id == span.c.audience_id)
        .join(destination, destination.c.id == span.c.destination_id)
        .join(snapshot, pinned)
        .outerjoin(told, of_span)
    )
    with database.read() as connection:
        return [_delivery(row) for row in connection.execute(query)]


def resyncs(database: Database) -> set[tuple[AudienceKey, str]]:
    """Audiences and destinations for which a resync was ordered that has not begun."""
    query = (
        select(audience.c.key, destination.c.name)
        .join(resync, resync.c.audience_id == audience.c.id)
        .join(destination, destination.c.id == resync.c.destination_id)
        .where(resync.c.span_id.is_(None))
    )
    with database.read() as connection:
        return {(AudienceKey(row.key), row.name) for row in connection.execute(query)}


def destinations(database: Database) -> set[str]:
    """Names of all destinations that anything was ever delivered to, or tried to be."""
    with database.read() as connection:
        return set(connection.scalars(select(destination.c.name)))


def _audience(row: Row[Any]) -> AudienceState:
    return AudienceState(
        key=AudienceKey(row.key),
        name=row.name,
        kind=Kind(row.kind),
        members=row.members or 0,
        seq=Seq(row.seq or 0),
        captured_at=row.last_captured_at,
        next_due=row.due,
        last_error=row.last_error,
        paused_at=row.paused_at,
        retired_at=row.retired_at,
    )


def _delivery(row: Row[Any]) -> DeliveryState:
    return DeliveryState(
        span_id=row.id,
        audience=AudienceKey(row.key),
        destination=row.name,
        told_seq=None if row.told_seq is None else Seq(row.told_seq),
        lane=Lane(row.lane),
        state=SpanState(row.state),
        held_for=row.held_for,
        to_seq=Seq(row.to_seq),
        plan_id=row.plan_id,
        books=Books(
            total=row.total, accepted=row.accepted, rejected=row.rejected, skipped=row.skipped
        ),
        ended_at=row.ended_at,
    )
