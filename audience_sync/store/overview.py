"""Where everything stands, for ``status``: a few queries, whatever the number of audiences."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, select

from audience_sync.domain.span import Books
from audience_sync.store.engine import Database
from audience_sync.store.schema import audience, destination, snapshot, span, told


@dataclass(frozen=True, kw_only=True, slots=True)
class AudienceState:
    key: str
    name: str
    kind: str
    members: int
    seq: int
    """0: never captured."""
    captured_at: datetime | None
    next_due: datetime | None
    last_error: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryState:
    """One audience at one destination; ``state`` and books are those of the newest span."""

    audience: str
    destination: str
    told_seq: int | None
    lane: str
    state: str
    held_for: str | None
    from_seq: int
    to_seq: int
    plan_id: str
    books: Books


def audiences(database: Database) -> dict[str, AudienceState]:
    newest = _newest(snapshot.c.seq, snapshot.c.state == "current", snapshot.c.audience_id)
    query = (
        select(audience, snapshot.c.members, snapshot.c.seq)
        .outerjoin(newest, newest.c.audience_id == audience.c.id)
        .outerjoin(
            snapshot,
            (snapshot.c.audience_id == audience.c.id)
            & (snapshot.c.seq == newest.c.top)
            & (snapshot.c.state == "current"),
        )
    )
    with database.read() as connection:
        return {row.key: _audience(row) for row in connection.execute(query)}


def deliveries(database: Database) -> list[DeliveryState]:
    newest = _newest(span.c.number, span.c.id > 0, span.c.audience_id, span.c.destination_id)
    query = (
        select(
            span,
            audience.c.key,
            destination.c.name,
            told.c.told_seq,
            snapshot.c.plan_id,
        )
        .join(
            newest,
            (newest.c.audience_id == span.c.audience_id)
            & (newest.c.destination_id == span.c.destination_id)
            & (newest.c.top == span.c.number),
        )
        .join(audience, audience.c.id == span.c.audience_id)
        .join(destination, destination.c.id == span.c.destination_id)
        .join(
            snapshot,
            (snapshot.c.audience_id == span.c.audience_id)
            & (snapshot.c.seq == span.c.to_seq)
            & (snapshot.c.state == "current"),
        )
        .outerjoin(
            told,
            (told.c.audience_id == span.c.audience_id)
            & (told.c.destination_id == span.c.destination_id),
        )
    )
    with database.read() as connection:
        return [_delivery(row) for row in connection.execute(query)]


def _newest(what: Any, where: Any, *groups: Any) -> Any:
    return select(*groups, func.max(what).label("top")).where(where).group_by(*groups).subquery()


def _audience(row: Row[Any]) -> AudienceState:
    return AudienceState(
        key=row.key,
        name=row.name,
        kind=row.kind,
        members=row.members or 0,
        seq=row.seq or 0,
        captured_at=row.last_captured_at,
        next_due=row.next_due,
        last_error=row.last_error,
    )


def _delivery(row: Row[Any]) -> DeliveryState:
    return DeliveryState(
        audience=row.key,
        destination=row.name,
        told_seq=row.told_seq,
        lane=row.lane,
        state=row.state,
        held_for=row.held_for,
        from_seq=row.from_seq,
        to_seq=row.to_seq,
        plan_id=row.plan_id,
        books=Books(
            total=row.total, accepted=row.accepted, rejected=row.rejected, skipped=row.skipped
        ),
    )
