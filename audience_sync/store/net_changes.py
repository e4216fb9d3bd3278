"""Net changes between kept snapshots, merged row by row from bases and changes.

Nothing is held open while they are read: each chunk is fetched in a transaction of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Row, Select, select

from audience_sync.domain.audience import AudienceKey, Seq
from audience_sync.domain.change import Change, compose_sets
from audience_sync.errors import StoreFailed
from audience_sync.store import chunks
from audience_sync.store.chunk_rows import changed, entered
from audience_sync.store.engine import Database
from audience_sync.store.schema import audience, snapshot


class NetChanges:
    """The log of each audience's snapshots, read as changes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def net(
        self, key: AudienceKey, from_seq: Seq, to_seq: Seq, *, after: str | None = None
    ) -> Iterator[Change]:
        """The net changes between two kept snapshots, sorted; from 0: all members as entered.

        Args:
            after: whole chunks up to this ``user_id`` may be left out.
        """
        with self._database.read() as connection:
            rows = connection.execute(current_log(key).order_by(snapshot.c.seq)).all()
        if from_seq:
            return compose_sets(
                self._set(row, chunks.CHANGES, after)
                for row in rows
                if from_seq < row.seq <= to_seq
            )
        base = nearest_base(rows, to_seq)
        sets = [self._set(base, chunks.BASE, after)]
        sets += [
            self._set(row, chunks.CHANGES, after) for row in rows if base.seq < row.seq <= to_seq
        ]
        backwards = [row for row in reversed(rows) if to_seq < row.seq <= base.seq]
        sets += [_inverse(self._set(row, chunks.CHANGES, after)) for row in backwards]
        return compose_sets(sets)

    def _set(self, row: Row[Any], part: str, after: str | None) -> Iterator[Change]:
        to_changes = entered if part == chunks.BASE else changed
        count = row.members if part == chunks.BASE else row.entered + row.exited + row.updated
        for batch in chunks.read(self._database, row.id, part, rows=count, after=after):
            yield from to_changes(batch)


def current_log(key: AudienceKey) -> Select[Any]:
    counts = snapshot.c.members, snapshot.c.entered, snapshot.c.exited, snapshot.c.updated
    what = snapshot.c.id, snapshot.c.audience_id, snapshot.c.seq, snapshot.c.has_base
    query = select(*what, *counts)
    return query.join(audience).where(audience.c.key == key, snapshot.c.state == "current")


def nearest_base(rows: Sequence[Row[Any]], to_seq: Seq) -> Row[Any]:
    """The newest base at or before ``to_seq``, else the oldest after it."""
    bases = [row for row in rows if row.has_base]
    before = [row for row in bases if row.seq <= to_seq]
    if not bases:
        raise StoreFailed("no base of the audience is kept", hint="restore the store from a backup")
    return before[-1] if before else bases[0]


def _inverse(changes: Iterator[Change]) -> Iterator[Change]:
    return (change.inverse() for change in changes)
