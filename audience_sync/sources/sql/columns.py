"""From the values that a driver gives to Arrow, column by column.

A column's type is found once, from the first rows, and every later value must fit it: one that
does not is an error. A column whose first rows are all NULL is asked for in the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

import pyarrow as pa

from audience_sync.errors import SourceRefused

Rows = Sequence[tuple[Any, ...]]
TypeOf = Callable[[str], pa.DataType | None]
"""The type of a column of which nothing but NULL was seen; ``None``: there is nothing else."""

MISFITS = (pa.ArrowException, OverflowError, UnicodeError, TypeError, ValueError)
WHOLE = pa.decimal128(38, 0)
WORDS = (
    (pa.types.is_integer, "a whole number"),
    (pa.types.is_decimal, "a whole number"),
    (pa.types.is_floating, "a number"),
    (pa.types.is_boolean, "true or false"),
    (pa.types.is_string, "text"),
    (pa.types.is_timestamp, "a time"),
    (pa.types.is_date, "a date"),
    (pa.types.is_time, "a time of day"),
)


def record_batches(
    names: Sequence[str], chunks: Iterator[Rows], type_of: TypeOf
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The rows of ``chunks`` as Arrow. The first chunk is read at once, for the types.

    Raises:
        SourceRefused: a value is of a type that Arrow does not have, or of another than those
            before it; also from the iteration.
    """
    first = next(chunks, ())
    columns = list(zip(*first, strict=True)) or [()] * len(names)
    types = [_type(name, column, type_of) for name, column in zip(names, columns, strict=True)]
    schema = pa.schema(list(zip(names, types, strict=True)))
    return schema, _batches(schema, first, chunks)


def _batches(schema: pa.Schema, first: Rows, chunks: Iterator[Rows]) -> Iterator[pa.RecordBatch]:
    rows = first
    while rows:
        columns = zip(*rows, strict=True)
        arrays = [_array(c, field) for c, field in zip(columns, schema, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)
        rows = next(chunks, ())


def _type(name: str, column: Sequence[Any], type_of: TypeOf) -> pa.DataType:
    if all(value is None for value in column):
        return type_of(name) or pa.string()
    return arrow_type(name, column)


def arrow_type(name: str, column: Sequence[Any]) -> pa.DataType:
    """The type of ``column``, of which at least one value is not ``None``.

    Raises:
        SourceRefused: its values are of several types, or of one that cannot travel.
    """
    try:
        found = pa.array(_texts(column)).type
    except MISFITS:
        found = _type_of_whole_numbers(name, column)
    if pa.types.is_decimal(found):
        return WHOLE if found.scale <= 0 else pa.float64()
    if pa.types.is_timestamp(found) and found.tz is not None:
        return pa.timestamp("us", "UTC")
    return found


def _type_of_whole_numbers(name: str, column: Sequence[Any]) -> pa.DataType:
    """Beyond 64 bits, such as MySQL's BIGINT UNSIGNED: the engine counts what cannot travel."""
    try:
        pa.array(column, WHOLE)
    except MISFITS:
        raise SourceRefused(
            f"query: the column {name} has values of several types, or of one that cannot travel",
            hint=f"CAST({name} AS …) to one type in the query",
        ) from None
    return WHOLE


def _array(column: Sequence[Any], field: pa.Field) -> pa.Array:
    """Arrow's own way into a type may cut 1.5 to 1, so a type is found anew, and then compared."""
    try:
        if field.type == WHOLE:
            return pa.array(column, WHOLE)
        found = pa.array(_texts(column))
        if found.type == field.type:
            return found
        if _widens(found.type, field.type):
            return found.cast(field.type)
    except MISFITS:
        pass
    word = next((word for fits, word in WORDS if fits(field.type)), f"a {field.type}")
    raise SourceRefused(
        f"query: the column {field.name} has a value that is not {word}, as those before it",
        hint=f"CAST({field.name} AS …) to one type in the query",
    )


def _widens(found: pa.DataType, into: pa.DataType) -> bool:
    """Whether every value of one type is one of the other, but for what a cast itself notices."""
    is_number = pa.types.is_integer(found) or pa.types.is_decimal(found)
    return bool(
        pa.types.is_null(found)
        or (is_number and pa.types.is_floating(into))
        or (pa.types.is_timestamp(found) and pa.types.is_timestamp(into) and found.tz and into.tz)
    )


def _texts(column: Sequence[Any]) -> Sequence[Any]:
    """UUIDs travel as text. Only few drivers make objects of them, so this loop is rare."""
    first = next((value for value in column if value is not None), None)
    if not isinstance(first, UUID):
        return column
    return [None if value is None else str(value) for value in column]
