"""Who this store is: its own id in every messageId, and the key of its keyed references."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from audience_sync.store.engine import Database, insert_missing
from audience_sync.store.schema import installation


@dataclass(frozen=True, kw_only=True, slots=True)
class Installation:
    key: str
    secret: str


def installation_of(database: Database, now: datetime, *, writes: bool = True) -> Installation:
    """The store's identity, made by whoever writes to it first; until then a passing one."""
    with database.read() as connection:
        found = _read(connection)
    if found is not None:
        return found
    return _made(database, now) if writes else Installation(key="none", secret="none")  # noqa: S106 - protects nothing: no call is made


def _read(connection: Connection) -> Installation | None:
    row = connection.execute(select(installation)).one_or_none()
    return None if row is None else Installation(key=row.key, secret=row.secret)


def _made(database: Database, now: datetime) -> Installation:
    ours = {"key": secrets.token_hex(12), "secret": secrets.token_hex(32)}
    with database.write() as connection:
        insert_missing(connection, installation, {"id": 1, "created_at": now, **ours})
        found = _read(connection)
    assert found is not None
    return found
