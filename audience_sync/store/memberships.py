"""The membership at any kept snapshot: something whole, and the changes to lay over it.

Whole is a base. Where the columns changed, both sides of the changes are whole as well: every
member's row was stored anew. Changes are laid forwards, or, before the oldest base, backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
from sqlalchemy import Row

from audience_sync.domain.audience import AudienceKey, Seq
from audience_sync.pipeline.ports.reading import Batches, Membership
from audience_sync.store import chunks
from audience_sync.store.engine import Database
from audience_sync.store.lookups import Lookups
from audience_sync.store.schema import snapshot
from audience_sync.store.snapshot_rows import columns_of, snapshots_in

LogRow = Row[Any]
Read = Callable[[], Batches]


def membership_at(database: Database, key: AudienceKey, seq: Seq) -> Membership:
    """The members at ``seq``, from the nearest base at or before it, else from a later one.

    Raises:
        UsageError: there is no such snapshot, or it is no longer kept.
    """
    query = snapshots_in(key, "current").order_by(snapshot.c.seq)
    with database.read() as connection:
        log = connection.execute(query).all()
    here = next((i for i, row in enumerate(log) if row.seq == seq), None)
    forwards = None if here is None else _forwards(database, log, here)
    if here is None or forwards is None:
        Lookups(database).check_kept(key, seq)
    assert here is not None
    whole, changes = forwards or _backwards(database, log, here)
    return Membership(
        columns=columns_of(log[here]), members=log[here].members, base=whole, changes=changes
    )


def _forwards(
    database: Database, log: Sequence[LogRow], here: int
) -> tuple[Read, list[Read]] | None:
    """``None``: no base at or before ``here`` is kept."""
    base = max((i for i in range(here + 1) if log[i].has_base), default=None)
    if base is None:
        return None
    # What follows a kept base is kept too.
    anew = [i for i in range(base + 1, here + 1) if _columns_changed(log, i)]
    start = max(anew, default=base)
    whole = _side(database, log[start], "after") if anew else _base(database, log[start])
    return whole, [_changes(database, row) for row in log[start + 1 : here + 1]]


def _backwards(database: Database, log: Sequence[LogRow], here: int) -> tuple[Read, list[Read]]:
    base = next(i for i in range(here + 1, len(log)) if log[i].has_base)
    anew = next((i for i in range(here + 1, base + 1) if _columns_changed(log, i)), None)
    if anew is None:
        whole, start = _base(database, log[base]), base
    else:
        whole, start = _side(database, log[anew], "before"), anew - 1
    return whole, [_inverse(_changes(database, row)) for row in reversed(log[here + 1 : start + 1])]


def _columns_changed(log: Sequence[LogRow], i: int) -> bool:
    before, after = columns_of(log[i - 1]), columns_of(log[i])
    return before != after


def _base(database: Database, row: LogRow) -> Read:
    return partial(chunks.read, database, row.id, chunks.BASE, rows=row.members)


def _changes(database: Database, row: LogRow) -> Read:
    count = row.entered + row.exited + row.updated
    return partial(chunks.read, database, row.id, chunks.CHANGES, rows=count)


def _side(database: Database, row: LogRow, side: str) -> Read:
    """Those who were members before, or are after, changes that hold every member."""
    read, prefix = _changes(database, row), f"{side}."

    def members() -> Iterator[pa.RecordBatch]:
        for batch in read():
            names = [name for name in batch.schema.names if name.startswith(prefix)]
            found = batch.filter(batch.column(side)).select(["user_id", *names])
            yield found.rename_columns(["user_id", *(n.removeprefix(prefix) for n in names)])

    return members


def _inverse(read: Read) -> Read:
    """Changes between equal columns, the other way round."""

    def inverted() -> Iterator[pa.RecordBatch]:
        for batch in read():
            user_id, before, after, *values = batch.columns
            half = len(values) // 2
            yield pa.RecordBatch.from_arrays(
                [user_id, after, before, *values[half:], *values[:half]], schema=batch.schema
            )

    return inverted
