"""Who asked to be forgotten: keyed references, from which no id can be read."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, func, select

from audience_sync.domain.forgotten import Forgotten, reference
from audience_sync.store.engine import Database, insert_missing
from audience_sync.store.schema import forgotten as table
from audience_sync.store.schema import installation


def forgotten(database: Database) -> Forgotten | None:
    """``None``: nobody asked, and nothing need be looked up."""
    with database.read() as connection:
        references = connection.scalars(select(table.c.reference)).all()
        salt = connection.scalar(select(installation.c.secret)) if references else None
    return Forgotten(salt=salt, references=references) if salt else None


def remember(connection: Connection, user_ids: Collection[str], now: datetime) -> None:
    """Nobody of ``user_ids`` is captured any more. The store has an installation."""
    salt = connection.execute(select(installation.c.secret)).scalar_one()
    for user_id in user_ids:
        row = {"reference": reference(salt, user_id), "forgotten_at": now}
        insert_missing(connection, table, row)


def count(connection: Connection) -> int:
    """It never falls; while it stays as it was, no log was rewritten."""
    return connection.execute(select(func.count()).select_from(table)).scalar_one()
