"""From the names people use to the rows that stand for them; rows are made at first use."""

from __future__ import annotations

from sqlalchemy import Connection, exists, select, update

from audience_sync.domain.audience import AudienceKey, Kind
from audience_sync.errors import ConfigError, UsageError
from audience_sync.store.engine import insert_missing
from audience_sync.store.schema import audience, destination, snapshot


def audience_id(connection: Connection, key: AudienceKey, name: str, kind: Kind) -> int:
    """The row of ``key``; it stays for ever, so that a key is never used again by another.

    Who keeps the key and has another name now was renamed.

    Raises:
        ConfigError: the key was captured as something of another kind.
    """
    query = select(audience).where(audience.c.key == key)
    found = connection.execute(query).one_or_none()
    if found is None:
        insert_missing(connection, audience, {"key": key, "name": name, "kind": str(kind)})
        found = connection.execute(query).one()
    if found.kind != kind:
        captured = snapshot.c.audience_id == found.id, snapshot.c.state == "current"
        if connection.scalar(select(exists().where(*captured))):
            raise ConfigError([another_kind(key, kind)])
    if (found.kind, found.name) != (kind, name):
        of_key = update(audience).where(audience.c.id == found.id)
        connection.execute(of_key.values(kind=str(kind), name=name))
    return int(found.id)


def another_kind(key: AudienceKey, kind: Kind) -> str:
    """What is wrong with a key that is now configured as ``kind`` and was captured as the other."""
    now, was = "audience", "a computed trait"
    if kind is Kind.COMPUTED_TRAIT:
        now, was = "computed trait", "an audience"
    return (
        f"{now} {key}: this key was captured as {was}, and a key is never used again "
        '(write key = "…" to choose another)'
    )


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
