"""Who this store is: its own id in every messageId, and the key of its keyed references."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select

from audience_sync.store.engine import Database
from audience_sync.store.schema import installation


@dataclass(frozen=True, kw_only=True, slots=True)
class Installation:
    key: str
    secret: str


def installation_of(database: Database, now: datetime) -> Installation:
    """The store's identity, made at first use."""
    with database.read() as connection:
        found = _read(connection)
    if found is None:
        with database.write() as connection:
            found = _read(connection) or _make(connection, now)
    return found


def _read(connection: Connection) -> Installation | None:
    row = connection.execute(select(installation)).one_or_none()
    return None if row is None else Installation(key=row.key, secret=row.secret)


def _make(connection: Connection, now: datetime) -> Installation:
    made = Installation(key=secrets.token_hex(12), secret=secrets.token_hex(32))
    connection.execute(
        insert(installation).values(id=1, key=made.key, secret=made.secret, created_at=now)
    )
    return made
