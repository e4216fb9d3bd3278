"""Which audiences and destinations the configuration brings together, and which no longer.

What a destination was told pins changes. Where the two are no longer together this ends after
``keep``; when they meet again after that, everybody's state is told anew.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, delete, select, update

from audience_sync.domain.audience import AudienceKey
from audience_sync.domain.span import SpanState
from audience_sync.store import rejections
from audience_sync.store.engine import Database, insert_missing
from audience_sync.store.pair import Pair, of_pair
from audience_sync.store.resyncs import request_resync
from audience_sync.store.schema import audience, destination, gone, span, told

UNFINISHED = span.c.state.in_([SpanState.OPEN, SpanState.HELD])

Names = tuple[AudienceKey, str]
"""An audience's key and a destination's name."""


def settle(database: Database, together: Collection[Names], now: datetime) -> None:
    """Remember which pairs are gone, and welcome back those that are together again.

    Args:
        together: all that the configuration brings together.
    """
    with database.read() as connection:
        begun, away = begun_pairs(connection), _gone(connection)
    left = [pair for pair, names in begun.items() if names not in together and pair not in away]
    back = [pair for pair in away if begun.get(pair) in together]
    if left or back:
        with database.write() as connection:
            for pair in left:
                insert_missing(connection, gone, {**pair._asdict(), "since": now})
            for pair in sorted(back):
                _welcome(connection, pair, now)


def release(connection: Connection, owner: int, keep_since: datetime, now: datetime) -> None:
    """Let go of an audience's pairs that are gone since before ``keep_since``."""
    query = select(gone.c.destination_id).where(
        gone.c.audience_id == owner, gone.c.since < keep_since, gone.c.released_at.is_(None)
    )
    for destination_id in connection.scalars(query).all():
        pair = Pair(owner, destination_id)
        abandon_unfinished(connection, pair, now)
        connection.execute(update(gone).where(of_pair(gone, *pair)).values(released_at=now))


def abandon_unfinished(connection: Connection, pair: Pair, now: datetime) -> None:
    """End the pair's open or held span, if there is one."""
    unfinished = select(span.c.id).where(of_pair(span, *pair), UNFINISHED)
    for span_id in connection.scalars(unfinished).all():
        abandon(connection, span_id, now)


def abandon(connection: Connection, span_id: int, now: datetime) -> None:
    """End a span that is open or held. What it took up stands again."""
    ended = update(span).where(span.c.id == span_id, UNFINISHED)
    connection.execute(ended.values(state=SpanState.ABANDONED, ended_at=now))
    rejections.put_back(connection, span_id)


def begun_pairs(connection: Connection) -> dict[Pair, Names]:
    """Pairs of which anything was ever told, or tried to be."""
    of_told = select(told.c.audience_id, told.c.destination_id)
    of_spans = select(span.c.audience_id, span.c.destination_id)
    pairs = of_told.union(of_spans).subquery()
    query = (
        select(pairs.c.audience_id, pairs.c.destination_id, audience.c.key, destination.c.name)
        .join(audience, audience.c.id == pairs.c.audience_id)
        .join(destination, destination.c.id == pairs.c.destination_id)
    )
    return {
        Pair(row.audience_id, row.destination_id): (AudienceKey(row.key), row.name)
        for row in connection.execute(query)
    }


def _welcome(connection: Connection, pair: Pair, now: datetime) -> None:
    # Whoever prunes locks the row too: the pair is let go before this, or not at all.
    owner = select(audience.c.id).where(audience.c.id == pair.audience_id)
    connection.execute(owner.with_for_update()).one()
    released = select(gone.c.released_at).where(of_pair(gone, *pair))
    if connection.scalar(released) is not None:
        request_resync(connection, pair, now)
    connection.execute(delete(gone).where(of_pair(gone, *pair)))


def _gone(connection: Connection) -> set[Pair]:
    query = select(gone.c.audience_id, gone.c.destination_id)
    return {Pair(*row) for row in connection.execute(query)}
