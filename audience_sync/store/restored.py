"""A store that came back from a backup: it no longer knows what was told since.

So everybody's state is told anew, with message ids that no destination has seen.
"""

from __future__ import annotations

import secrets
from datetime import datetime

from sqlalchemy import update

from audience_sync.store.engine import Database
from audience_sync.store.gone import Names, begun_pairs
from audience_sync.store.leases import free_all
from audience_sync.store.orders import Given, record
from audience_sync.store.resyncs import request_resync
from audience_sync.store.schema import audience, installation


def to_tell_anew(database: Database) -> list[Names]:
    """Every audience and destination of which anything was ever told, or tried to be."""
    with database.read() as connection:
        return sorted(begun_pairs(connection).values())


def restored(database: Database, given: Given, now: datetime) -> None:
    """Take the backup for what it is.

    The installation gets another key, which is in every ``messageId``: a destination would drop
    those that it has seen. Its secret stays: whom we forgot is known by it.

    Raises:
        LeaseTaken: a living process is at work.
    """
    with database.write() as connection:
        free_all(connection)
        connection.execute(update(installation).values(key=secrets.token_hex(12)))
        pairs = begun_pairs(connection)
        for pair in pairs:
            request_resync(connection, pair, now)
        connection.execute(update(audience).values(next_due=now))
        record(connection, "restored", given, now, {"pairs": len(pairs)})
