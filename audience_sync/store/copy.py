"""A whole store copied into an empty one, on SQLite or PostgreSQL.

One transaction makes all of it visible at the target, so nobody can go on with half a copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import zip_longest

import pyarrow as pa
from sqlalchemy import Connection, Table, func, insert, inspect, select

from audience_sync.domain.audience import AudienceKey
from audience_sync.errors import StoreFailed, UsageError
from audience_sync.pipeline.ports.reading import Membership
from audience_sync.store import migrate, schema
from audience_sync.store.engine import Database
from audience_sync.store.leases import Leases
from audience_sync.store.snapshot_reads import SnapshotReads
from audience_sync.store.standstill import captures, deliveries, hold

ROWS = 500
"""Rows in memory at a time."""
CHUNKS = 4
"""Of chunks, which are up to a few megabytes each."""

TABLES = [table for table in schema.metadata.sorted_tables if table is not schema.lease]
"""What is copied, each after those that it refers to. Leases are of processes, not of the store."""


def copy(source: Database, target: Database) -> dict[AudienceKey, int]:
    """Copy all of ``source``, while nobody is at work in it, and read it back.

    Returns:
        The members of each audience, as they were read at the target.

    Raises:
        UsageError: there is nothing to copy, or something at the target.
        LeaseTaken: a capture or a delivery goes on.
        StoreFailed: nothing is at the target then.
    """
    check(source, target)
    with ExitStack() as stack:
        names = [*captures(source), *deliveries(source)]
        hold(stack, Leases(source), names)
        migrate.upgrade(target)
        with source.read(of_one_moment=True) as reading, target.write() as writing:
            _check_no_rows(writing)
            for table in TABLES:
                _copy_table(table, reading, writing)
            _continue_numbers(writing)
        try:
            return _read_back(source, target)
        except StoreFailed:
            _empty(target)
            raise


def check(source: Database, target: Database) -> None:
    """Raises UsageError unless there is a store at ``source``, and none at ``target``."""
    if migrate.version(source) is None:
        raise UsageError("there is no store to copy", hint="check [store] url")
    migrate.check_readable(migrate.version(source))
    if target.path is not None and not migrate.is_there(target.path):
        return
    found = migrate.version(target)
    migrate.check_readable(found)
    with target.read() as connection:
        if found is not None:
            _check_no_rows(connection)
            return
        ours = set(inspect(connection).get_table_names()) & {t.name for t in TABLES}
    if ours:
        raise UsageError(
            f"the target has tables that are not ours: {', '.join(sorted(ours))}",
            hint="name an empty database",
        )


def _check_no_rows(connection: Connection) -> None:
    for table in TABLES:
        if connection.execute(select(table).limit(1)).first() is not None:
            raise UsageError(
                "there is a store at the target already", hint="name an empty database"
            )


def _copy_table(table: Table, reading: Connection, writing: Connection) -> None:
    size = CHUNKS if table is schema.chunk else ROWS
    query = select(table).order_by(*table.primary_key.columns)
    rows = reading.execute(query.execution_options(yield_per=size))
    copied = 0
    for part in rows.mappings().partitions(size):
        writing.execute(insert(table), [dict(row) for row in part])
        copied += len(part)
    arrived = writing.execute(select(func.count()).select_from(table)).scalar_one()
    if arrived != copied:
        raise StoreFailed(f"{copied:,} rows of {table.name} were copied, {arrived:,} arrived")


def _continue_numbers(connection: Connection) -> None:
    """PostgreSQL numbers rows by sequences, which know nothing of rows that bring their own."""
    if connection.dialect.name != "postgresql":
        return
    for table in TABLES:
        if "id" in table.c:
            top = select(func.max(table.c.id)).scalar_subquery()
            sequence = func.pg_get_serial_sequence(f'"{table.name}"', "id")
            connection.execute(select(func.setval(sequence, top)).where(top.is_not(None)))


def _read_back(source: Database, target: Database) -> dict[AudienceKey, int]:
    """Every newest membership, row by row from both.

    Raises:
        StoreFailed: one differs, or cannot be read.
    """
    with source.read() as connection:
        keys = [AudienceKey(key) for key in connection.scalars(select(schema.audience.c.key))]
    members: dict[AudienceKey, int] = {}
    for key in sorted(keys):
        there, here = _newest(source, key), _newest(target, key)
        if there is None and here is None:
            continue
        if there is None or here is None or not _same(there, here):
            raise StoreFailed(
                f"{key} does not read the same at the target, which was emptied again",
                hint="check the target's disk, then copy again",
            )
        members[key] = here.members
    return members


def _newest(database: Database, key: AudienceKey) -> Membership | None:
    reads = SnapshotReads(database)
    newest = reads.current(key)
    return reads.membership(key, newest.seq) if newest else None


def _same(there: Membership, here: Membership) -> bool:
    if (there.columns, there.members) != (here.columns, here.members):
        return False
    pairs = zip_longest(_batches(there), _batches(here))
    return all(one is not None and other is not None and one.equals(other) for one, other in pairs)


def _batches(membership: Membership) -> Iterator[pa.RecordBatch]:
    for part in (membership.base, *membership.changes):
        yield from part()


def _empty(database: Database) -> None:
    with database.write() as connection:
        for table in reversed(TABLES):
            connection.execute(table.delete())
