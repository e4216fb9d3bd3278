"""Chunks: runs of sorted rows, each an Arrow IPC stream with zstd in one row of the database.

A CRC-32 of the stream follows it: Arrow and zstd as Arrow uses it have no checksum, and a flipped
bit would be read as another user.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import ColumnElement, and_, delete, insert, select, tuple_

from audience_sync.errors import ChunkDamaged
from audience_sync.pipeline.ports.leases import Lease
from audience_sync.pipeline.ports.reading import Batches
from audience_sync.store.engine import Database
from audience_sync.store.schema import chunk

BASE = "base"
CHANGES = "changes"
CHUNKS_PER_TRANSACTION = 8
"""Small transactions, so that staging a large snapshot keeps nobody else from writing."""
CHECKSUM_BYTES = 4
FETCHED_TOGETHER = 16
"""Chunks that one transaction reads when they are looked up."""
ROWS = {BASE: 65_536, CHANGES: 8_192}
"""Rows of a chunk. Change sets are read side by side, one chunk of each in memory: smaller ones
keep a destination that is many snapshots behind from needing a lot."""


def encode(batch: pa.RecordBatch) -> bytes:
    # Of a slice Arrow writes up to 63 bytes too many: the next users, who may be forgotten one day.
    batch = batch.take(pc.indices_nonzero(pa.repeat(True, batch.num_rows)))
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    stream = sink.getvalue().to_pybytes()
    return b"".join((stream, _checksum(stream)))


def decode(payload: bytes) -> pa.RecordBatch:
    """Raises StoreFailed for a payload that is not what ``encode`` wrote."""
    stream, checksum = payload[:-CHECKSUM_BYTES], payload[-CHECKSUM_BYTES:]
    if _checksum(stream) != checksum:
        raise ChunkDamaged("a stored chunk is damaged", hint="restore the store from a backup")
    # A chunk is small: threads for its columns cost more than they save, most on a busy machine.
    with pa.ipc.open_stream(stream, options=pa.ipc.IpcReadOptions(use_threads=False)) as reader:
        return reader.read_next_batch()


def _checksum(stream: bytes) -> bytes:
    return zlib.crc32(stream).to_bytes(CHECKSUM_BYTES)


def write(database: Database, snapshot_id: int, part: str, batches: Batches, lease: Lease) -> None:
    """Append all batches as chunks of a snapshot that nobody sees yet.

    Raises:
        ValueError: rows that are not sorted by ``user_id``, each once.
    """
    waiting: list[dict[str, Any]] = []
    last = None
    for ordinal, batch in enumerate(_sized(batches, ROWS[part])):
        _check_order(batch, last)
        last = batch.column(0)[batch.num_rows - 1].as_py()
        waiting.append(_row(snapshot_id, part, ordinal, batch))
        if len(waiting) == CHUNKS_PER_TRANSACTION:
            _insert(database, waiting, lease)
            waiting = []
    if waiting:
        _insert(database, waiting, lease)


def read(
    database: Database, snapshot_id: int, part: str, *, rows: int, after: str | None = None
) -> Iterator[pa.RecordBatch]:
    """The chunks of a snapshot in order, one short transaction each.

    Args:
        rows: how many the snapshot says that it has.
        after: leave out whole chunks up to this ``user_id``.

    Raises:
        StoreFailed: chunks are missing; they are never taken for fewer members.
    """
    here = and_(chunk.c.snapshot_id == snapshot_id, chunk.c.part == part)
    query = select(chunk.c.ordinal, chunk.c.rows, chunk.c.last_user_id).where(here)
    with database.read() as connection:
        stored = connection.execute(query.order_by(chunk.c.ordinal)).all()
    if sum(row.rows for row in stored) != rows:
        raise removed()
    # Python compares text by code point, which is the order of the bytes of UTF-8.
    for row in stored:
        if after is None or row.last_user_id > after:
            yield _chunk(database, and_(here, chunk.c.ordinal == row.ordinal))


def fetch(
    database: Database, part: str, places: Sequence[tuple[int, int]]
) -> Iterator[pa.RecordBatch]:
    """Chunks by snapshot and ordinal, in the order asked for; a few in memory at a time.

    Raises:
        StoreFailed: one of them was removed meanwhile.
    """
    for start in range(0, len(places), FETCHED_TOGETHER):
        some = places[start : start + FETCHED_TOGETHER]
        query = select(chunk.c.snapshot_id, chunk.c.ordinal, chunk.c.payload).where(
            chunk.c.part == part, tuple_(chunk.c.snapshot_id, chunk.c.ordinal).in_(some)
        )
        with database.read() as connection:
            found = {(row[0], row[1]): row[2] for row in connection.execute(query)}
        for place in some:
            if place not in found:
                raise removed()
            yield decode(found[place])


def _sized(batches: Batches, rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def _chunk(database: Database, where: ColumnElement[bool]) -> pa.RecordBatch:
    with database.read() as connection:
        payload = connection.scalar(select(chunk.c.payload).where(where))
    if payload is None:
        raise removed()
    return decode(payload)


def removed() -> ChunkDamaged:
    return ChunkDamaged(
        "chunks of a snapshot are no longer kept", hint="run it again; it may be older than keep"
    )


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
    place = {"snapshot_id": snapshot_id, "part": part, "ordinal": ordinal}
    return place | content(batch)


def content(batch: pa.RecordBatch) -> dict[str, Any]:
    """What is stored of rows, and said of them."""
    ids = batch.column(0)
    return {
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
