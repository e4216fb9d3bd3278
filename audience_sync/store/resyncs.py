"""Orders to tell everybody's state anew, and the capture that each of them waits for."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from audience_sync.store.pair import Pair, of_pair
from audience_sync.store.schema import audience, resync, run, snapshot


def request_resync(connection: Connection, pair: Pair, now: datetime) -> None:
    """Have everybody's state told anew, in the place of whatever is under way."""
    wanted = {"requested_at": now, "span_id": None}
    changed = connection.execute(update(resync).where(of_pair(resync, *pair)).values(wanted))
    if not changed.rowcount:
        connection.execute(insert(resync).values(**pair._asdict(), **wanted))


def captured_since_request() -> ColumnElement[bool]:
    """Whether the audience was captured after its resync was asked for: then it may begin.

    A capture that was at work already may have read what the resync is to put right, and one
    that is held counts when it is approved. Who is retired is never captured again.
    """
    approved = snapshot.alias()
    held = and_(
        run.c.outcome == "held",
        run.c.snapshot_id.in_(select(approved.c.id).where(approved.c.state == "current")),
    )
    retired = select(audience.c.retired_at).where(audience.c.id == resync.c.audience_id)
    return or_(
        _began_since_request(or_(run.c.outcome.in_(["committed", "unchanged"]), held)),
        retired.correlate(resync).scalar_subquery().is_not(None),
    )


def next_due() -> ColumnElement[datetime]:
    """When an audience is captured next: at once where a resync waits for that."""
    asked = select(func.min(resync.c.requested_at)).where(
        resync.c.audience_id == audience.c.id, ~_began_since_request(run.c.outcome != "failed")
    )
    at_once = asked.correlate(audience).scalar_subquery()
    # An order of before the clock went back lies in the future: it delays nothing.
    sooner = case((audience.c.next_due < at_once, audience.c.next_due), else_=at_once)
    return func.coalesce(sooner, audience.c.next_due, type_=audience.c.next_due.type)


def _began_since_request(done: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(
        run.c.audience_id == resync.c.audience_id,
        run.c.kind == "capture",
        run.c.started_at >= resync.c.requested_at,
        done,
    )
