"""PostgreSQL through psycopg: rows as they stream, turned into Arrow by the types of the server.

What Python would make objects of (times, numerics, JSON) stays the text that the server sent, and
Arrow reads whole columns of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import psycopg
import pyarrow as pa
from psycopg.types.string import TextLoader

from audience_sync.errors import SourceRefused
from audience_sync.sources.sql.statement import Statement

BATCH_ROWS = 4096
"""Rows of Python objects at once: more do not stay in the processor's cache."""

STREAM_ROWS = 1000
"""Rows that the driver takes from the wire at once; 1 where libpq is older than 17."""

ARROW: Mapping[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int2": pa.int64(),
    "int4": pa.int64(),
    "int8": pa.int64(),
    "oid": pa.int64(),
    "float4": pa.float64(),
    "float8": pa.float64(),
    "bytea": pa.binary(),
    "numeric": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
}
"""Every other type travels as the server's text for it: uuid, json, enums, time, interval, …"""

OBJECTS = frozenset({"bool", "int2", "int4", "int8", "oid", "float4", "float8", "bytea"})
"""Types of which Python's own values are used."""

UNFIT = "SELECT oid::int8, format_type(oid, NULL) FROM pg_type WHERE typcategory IN ('A', 'C', 'P')"
"""Arrays, rows and pseudo-types."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """``as_text``: the driver gives the server's text, of which Arrow makes the type."""

    field: pa.Field
    as_text: bool


def record_batches(
    connection: psycopg.Connection[Any], statement: Statement
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The statement's rows; the first are read at once.

    Raises:
        SourceRefused: a column cannot travel; also from the iteration, for a value.
        psycopg.Error: also from the iteration.
    """
    cursor = connection.cursor()
    unfit: dict[int, str] = dict(cursor.execute(UNFIT))
    for info in connection.adapters.types:
        if info.name not in OBJECTS:
            cursor.adapters.register_loader(info.oid, TextLoader)
    size = STREAM_ROWS if psycopg.capabilities.has_stream_chunked() else 1
    rows = cursor.stream(statement.text, statement.parameters, size=size)
    first = list(islice(rows, BATCH_ROWS))
    described = cursor.description if first else _described(connection, statement)
    columns = [_column(column, connection, unfit) for column in described or ()]
    schema = pa.schema([column.field for column in columns])
    return schema, _batches(schema, columns, first, rows)


def _described(
    connection: psycopg.Connection[Any], statement: Statement
) -> Sequence[psycopg.Column] | None:
    """A stream without rows does not say which columns it would have had."""
    text = f"SELECT * FROM ({statement.text}\n) AS query LIMIT 0"
    return connection.execute(text, statement.parameters).description


def _column(
    column: psycopg.Column, connection: psycopg.Connection[Any], unfit: Mapping[int, str]
) -> Column:
    if column.type_code in unfit:
        shown = unfit[column.type_code]
        raise SourceRefused(
            f"the column {column.name} is of type {shown}, which cannot travel as a trait",
            hint=f"CAST({column.name} AS text), or leave it out",
        )
    info = connection.adapters.types.get(column.type_code)
    name = info.name if info else ""
    kind = _of_numeric(column) if name == "numeric" else ARROW.get(name, pa.string())
    return Column(field=pa.field(column.name, kind), as_text=name not in OBJECTS)


def _of_numeric(column: psycopg.Column) -> pa.DataType:
    """Ids stay exact. The scale is known of a declared column, and not of a sum."""
    if column.name == "user_id":
        return pa.string()
    whole = column.scale == 0 and (column.precision or 0) <= 38
    return pa.decimal128(38, 0) if whole else pa.float64()


def _batches(
    schema: pa.Schema, columns: Sequence[Column], first: Sequence[Any], rows: Iterator[Any]
) -> Iterator[pa.RecordBatch]:
    batch = first
    while batch:
        values = zip(*batch, strict=True)
        arrays = [_array(v, column) for v, column in zip(values, columns, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)
        batch = list(islice(rows, BATCH_ROWS))


def _array(values: Sequence[Any], column: Column) -> pa.Array:
    field = column.field
    if not column.as_text or pa.types.is_string(field.type):
        return pa.array(values, field.type)
    try:
        return pa.array(values, pa.string()).cast(field.type)
    except pa.ArrowInvalid:
        raise SourceRefused(
            f"query: the column {field.name} has a value that cannot travel as {field.type} "
            "(infinity, a time before Christ or after the year 9999)",
            hint=f"CAST({field.name} AS text), or leave such rows out",
        ) from None
