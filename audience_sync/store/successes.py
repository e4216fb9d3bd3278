"""When a destination last knew everything, for those that do not now: a few rows, by an index."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, func, select

from audience_sync.domain.audience import AudienceKey, Seq
from audience_sync.domain.span import SpanState
from audience_sync.store.engine import Database
from audience_sync.store.schema import audience, destination, rejection, run, snapshot, span

GOOD = ("committed", "unchanged")
"""Captures after which what is stored is what the source said; held and failed ones are not."""


def last_capture(database: Database, key: AudienceKey, told: Seq) -> datetime | None:
    """The cycle time of the newest good capture after which there was nothing beyond ``told``.

    Looked for among the runs between two snapshots only: there are many, of all audiences, and
    they have no index by audience.
    """
    of_audience = and_(audience.c.id == snapshot.c.audience_id, audience.c.key == key)
    around = select(snapshot.c.seq, snapshot.c.captured_at).join(audience, of_audience)
    around = around.where(snapshot.c.seq.in_([told, told + 1]), snapshot.c.state == "current")
    with database.read() as connection:
        made = {row.seq: row.captured_at for row in connection.execute(around)}
        if told not in made:
            return None
        since: datetime = made[told]
        newest: datetime | None = connection.scalar(_newest_capture(key, since, made.get(told + 1)))
    return since if newest is None else max(since, newest)


def last_completion(database: Database, key: AudienceKey, name: str) -> datetime | None:
    """When the newest completed delivery of an audience to a destination ended."""
    query = (
        select(span.c.ended_at)
        .join(audience, audience.c.id == span.c.audience_id)
        .join(destination, destination.c.id == span.c.destination_id)
        .where(audience.c.key == key, destination.c.name == name)
        .where(span.c.state == SpanState.COMPLETED)
        .order_by(span.c.number.desc())
        .limit(1)
    )
    with database.read() as connection:
        found: datetime | None = connection.scalar(query)
    return found


def rejected(database: Database) -> dict[tuple[AudienceKey, str], int]:
    """How many members stand rejected, by audience and destination; none are left out."""
    query = (
        select(audience.c.key, destination.c.name, func.count().label("members"))
        .select_from(rejection)
        .join(audience, audience.c.id == rejection.c.audience_id)
        .join(destination, destination.c.id == rejection.c.destination_id)
        .where(rejection.c.resolved_in.is_(None), rejection.c.outcome == "rejected")
        .group_by(audience.c.key, destination.c.name)
    )
    with database.read() as connection:
        rows = connection.execute(query).all()
    return {(AudienceKey(row.key), row.name): row.members for row in rows}


def _newest_capture(key: AudienceKey, since: datetime, until: datetime | None) -> Select[Any]:
    query = (
        select(run.c.cycle_time)
        .join(audience, audience.c.id == run.c.audience_id)
        .where(audience.c.key == key, run.c.kind == "capture", run.c.outcome.in_(GOOD))
        .where(run.c.started_at >= since)
        .order_by(run.c.started_at.desc())
        .limit(1)
    )
    return query if until is None else query.where(run.c.started_at < until)
