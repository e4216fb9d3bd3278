"""From the names people use to the rows that stand for them; rows are made at first use."""

from __future__ import annotations

from sqlalchemy import Connection, select

from audience_sync.domain.audience import AudienceKey, Kind
from audience_sync.errors import UsageError
from audience_sync.store.engine import insert_missing
from audience_sync.store.schema import audience, destination


def audience_id(connection: Connection, key: AudienceKey, name: str, kind: Kind) -> int:
    """The row of ``key``; it stays for ever, so that a key is never used again by another."""
    found = connection.scalar(select(audience.c.id).where(audience.c.key == key))
    if found is not None:
        return int(found)
    insert_missing(connection, audience, {"key": key, "name": name, "kind": str(kind)})
    return known_audience_id(connection, key)


def known_audience_id(connection: Connection, key: AudienceKey, *, lock: bool = False) -> int:
    """The row of ``key``; ``lock`` keeps others from locking it until the transaction ends.

    Raises:
        UsageError: the audience was never captured.
    """
    query = select(audience.c.id).where(audience.c.key == key)
    found = connection.scalar(query.with_for_update() if lock else query)
    if found is None:
        raise UsageError(f"no snapshot of {key} yet")
    return int(found)


def destination_id(connection: Connection, name: str) -> int:
    query = select(destination.c.id).where(destination.c.name == name)
    found = connection.scalar(query)
    if found is None:
        # Both lanes of a new destination may start at once.
        insert_missing(connection, destination, {"name": name})
        found = connection.scalars(query).one()
    return int(found)
