"""Chunks: runs of sorted rows, each an Arrow IPC stream with zstd in one row of the database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import and_, delete, insert, select

from audience_sync.errors import StoreFailed
from audience_sync.pipeline.ports import Batches, Lease
from audience_sync.store.engine import Database
from audience_sync.store.schema import chunk

BASE = "base"
CHANGES = "changes"
CHUNKS_PER_TRANSACTION = 8
"""Small transactions, so that staging a large snapshot keeps nobody else from writing."""


def encode(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def decode(payload: bytes) -> pa.RecordBatch:
    """Raises StoreFailed for a payload that is not what ``encode`` wrote."""
    try:
        with pa.ipc.open_stream(payload) as reader:
            return reader.read_next_batch()
    except (pa.ArrowInvalid, OSError, StopIteration) as error:
        raise StoreFailed(
            f"a stored chunk is damaged ({type(error).__name__})",
            hint="restore the store from a backup",
        ) from None


def write(database: Database, snapshot_id: int, part: str, batches: Batches, lease: Lease) -> None:
    """Append all batches as chunks of a snapshot that nobody sees yet.

    Raises:
        ValueError: rows that are not sorted by ``user_id``, each once.
    """
    waiting: list[dict[str, Any]] = []
    last = None
    for ordinal, batch in enumerate(batch for batch in batches if batch.num_rows):
        _check_order(batch, last)
        last = batch.column(0)[batch.num_rows - 1].as_py()
        waiting.append(_row(snapshot_id, part, ordinal, batch))
        if len(waiting) == CHUNKS_PER_TRANSACTION:
            _insert(database, waiting, lease)
            waiting = []
    if waiting:
        _insert(database, waiting, lease)


def read(
    database: Database, snapshot_id: int, part: str, *, after: str | None = None
) -> Iterator[pa.RecordBatch]:
    """The chunks of a snapshot in order, one short transaction each.

    Args:
        after: leave out whole chunks up to this ``user_id``.
    """
    here = and_(chunk.c.snapshot_id == snapshot_id, chunk.c.part == part)
    query = select(chunk.c.ordinal).where(here).order_by(chunk.c.ordinal)
    if after is not None:
        query = query.where(chunk.c.last_user_id > after)
    with database.read() as connection:
        ordinals = connection.scalars(query).all()
    for ordinal in ordinals:
        with database.read() as connection:
            payload = connection.scalar(
                select(chunk.c.payload).where(here, chunk.c.ordinal == ordinal)
            )
        if payload is None:
            raise StoreFailed("a chunk was removed while it was read", hint="run it again")
        yield decode(payload)


def remove(database: Database, snapshot_id: int, lease: Lease, part: str | None = None) -> None:
    with database.write(lease) as connection:
        statement = delete(chunk).where(chunk.c.snapshot_id == snapshot_id)
        if part is not None:
            statement = statement.where(chunk.c.part == part)
        connection.execute(statement)


def _insert(database: Database, rows: list[dict[str, Any]], lease: Lease) -> None:
    with database.write(lease) as connection:
        connection.execute(insert(chunk), rows)


def _row(snapshot_id: int, part: str, ordinal: int, batch: pa.RecordBatch) -> dict[str, Any]:
    ids = batch.column(0)
    return {
        "snapshot_id": snapshot_id,
        "part": part,
        "ordinal": ordinal,
        "rows": batch.num_rows,
        "first_user_id": ids[0].as_py(),
        "last_user_id": ids[batch.num_rows - 1].as_py(),
        "payload": encode(batch),
    }


def _check_order(batch: pa.RecordBatch, last: str | None) -> None:
    """Positions, seeks and merges all stand on this order; a violation must never be stored."""
    ids = batch.column(0)
    rising = pc.all(pc.less(ids[:-1], ids[1:])).as_py() if batch.num_rows > 1 else True
    if not rising or (last is not None and ids[0].as_py() <= last):
        raise ValueError("rows are not sorted by user_id, each once")
