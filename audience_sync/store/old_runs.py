"""Runs that nobody looks at any more. Orders of people are kept: they are few."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, select

from audience_sync.store.schema import run
from audience_sync.store.successes import GOOD

CAPTURE, DELIVERY = "capture", "delivery"


def forget_runs(connection: Connection, owner: int, keep_since: datetime) -> None:
    """Remove captures of an audience, and deliveries to anywhere, that began before.

    Its newest good capture stays, which says how long the audience has been up to date. A resync
    whose capture is forgotten is captured for once more.
    """
    newest = (
        select(run.c.id)
        .where(run.c.audience_id == owner, run.c.kind == CAPTURE, run.c.outcome.in_(GOOD))
        .order_by(run.c.started_at.desc(), run.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    kept = connection.scalar(select(newest))
    old = run.c.started_at < keep_since, run.c.ended_at.is_not(None)
    captures = run.c.kind == CAPTURE, run.c.audience_id == owner, run.c.id != (kept or 0)
    connection.execute(delete(run).where(*old, *captures))
    connection.execute(delete(run).where(*old, run.c.kind == DELIVERY))
