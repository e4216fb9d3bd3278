"""Column types: what a source gave, brought to one of four, in agreement with the last snapshot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from audience_sync.domain.audience import VALUE, Columns, ColumnType, Kind
from audience_sync.errors import SourceRefused

SQL_TYPE = {
    ColumnType.STRING: "VARCHAR",
    ColumnType.BOOL: "BOOLEAN",
    ColumnType.INT64: "BIGINT",
    ColumnType.FLOAT64: "DOUBLE",
}
ARROW_TYPE = {
    ColumnType.STRING: pa.string(),
    ColumnType.BOOL: pa.bool_(),
    ColumnType.INT64: pa.int64(),
    ColumnType.FLOAT64: pa.float64(),
}
MOST_SHOWN, LONGEST_SHOWN = 20, 60
SEPARATED = re.compile(r"\w+([^\w\s]|\t)\w")
MAX_COLUMNS = 298
"""With the trait key they stay below Segment's 300 traits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Carried:
    """One carried column of a read.

    ``value`` and ``unusable`` are SQL over the source's column: the canonical value, and
    whether the row must be refused for it.
    """

    name: str
    type: ColumnType
    value: str
    unusable: str | None = None


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def numbered(letter: str, count: int) -> str:
    """``, c0, c1``: a session's columns go by position."""
    return "".join(f", {letter}{i}" for i in range(count))


def renamed(letter: str, columns: Columns, prefix: str) -> str:
    """``, c0 AS "after.email"``: back from positions to names."""
    return "".join(f", {letter}{i} AS {quoted(prefix + n)}" for i, n in enumerate(columns))


def carried_columns(
    schema: pa.Schema, *, reserved: str, kind: Kind = Kind.AUDIENCE
) -> tuple[str, list[Carried]]:
    """The name of the ``user_id`` column and the carried columns of ``schema``; the value of a
    computed trait is one of them, and is called ``value`` however the query spells it.

    Raises:
        SourceRefused: a column is missing, twice there, or of a type that cannot travel.
    """
    names = [field.name for field in schema]
    folded = [name.casefold() for name in names]
    if twice := sorted({n for n in folded if folded.count(n) > 1}):
        raise SourceRefused(
            f"the query gives the column {twice[0]} more than once",
            hint="name each column once, with AS",
        )
    if "" in names:
        raise SourceRefused("the query gives a column without a name", hint="name it, with AS")
    if "user_id" not in folded:
        raise SourceRefused(
            f"the query gives no column user_id, only {shown(names)}", hint=_how_to_name(names)
        )
    user_id = schema.field(folded.index("user_id"))
    _check_user_id(user_id.type)
    others = [field for field in schema if field is not user_id and field.name != user_id.name]
    if len(others) > MAX_COLUMNS:
        raise SourceRefused(
            f"the query gives {len(others)} columns beside user_id (limit {MAX_COLUMNS})",
            hint="select only what the destinations need",
        )
    if reserved.casefold() in folded:
        raise SourceRefused(
            f"the query gives a column {reserved}, which is the audience's own trait key",
            hint="rename the column with AS",
        )
    carried = [_carried(field) for field in others]
    return user_id.name, carried if kind is Kind.AUDIENCE else _with_value(carried, names)


def _with_value(carried: Sequence[Carried], names: Sequence[str]) -> list[Carried]:
    if VALUE not in (column.name.casefold() for column in carried):
        raise SourceRefused(
            f"the query gives no column {VALUE}, only {shown(names)}",
            hint=f"name what the computed trait is to be: SELECT user_id, … AS {VALUE}",
        )
    return [replace(c, name=VALUE) if c.name.casefold() == VALUE else c for c in carried]


def shown(names: Sequence[str]) -> str:
    """Some of ``names``; a file that is none of ours may have any number, of any length."""
    first = ", ".join(name[:LONGEST_SHOWN] for name in names[:MOST_SHOWN])
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return "".join(letter if letter.isprintable() else "?" for letter in first) + more


def _how_to_name(names: Sequence[str]) -> str:
    """A header line that was not taken apart is one long name."""
    if len(names) == 1 and (between := SEPARATED.match(names[0])):
        return f"state what separates the columns: read_csv('…', delim = '{between[1]}')"
    return "name the id column: SELECT … AS user_id"


def _check_user_id(kind: pa.DataType) -> None:
    fractional = pa.types.is_floating(kind) or (pa.types.is_decimal(kind) and kind.scale > 0)
    if fractional:
        raise SourceRefused(
            f"user_id is a {kind}, and a float does not hold an id exactly",
            hint="CAST(user_id AS BIGINT), or read it as text",
        )
    if not (_is_text(kind) or pa.types.is_integer(kind) or _is_decimal(kind)):
        raise SourceRefused(f"user_id is a {kind}, not text", hint="CAST(user_id AS VARCHAR)")


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_dictionary(kind)
        or pa.types.is_null(kind)
    )


def _is_decimal(kind: pa.DataType) -> bool:
    """One that DuckDB can take over."""
    return bool(pa.types.is_decimal(kind) and not pa.types.is_decimal256(kind))


def _is_float(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) and not pa.types.is_float16(kind))


def _carried(field: pa.Field) -> Carried:
    column, kind = quoted(field.name), field.type
    made: tuple[ColumnType, str, str | None]
    if field.name.casefold() == "email" and not _is_text(kind):
        raise SourceRefused(
            f"the column email is a {kind}, not text",
            hint="select an e-mail address, or rename the column with AS",
        )
    if _is_text(kind):
        made = ColumnType.STRING, f"CAST({column} AS VARCHAR)", None
    elif pa.types.is_boolean(kind):
        made = ColumnType.BOOL, column, None
    elif pa.types.is_integer(kind) or (_is_decimal(kind) and kind.scale == 0):
        made = _integer(column)
    elif _is_decimal(kind) or _is_float(kind):
        double = f"CAST({column} AS DOUBLE)"
        made = ColumnType.FLOAT64, double, f"NOT isfinite({double})"
    elif pa.types.is_timestamp(kind):
        made = ColumnType.STRING, _iso_time(column, zoned=kind.tz is not None), None
    elif pa.types.is_date(kind) or pa.types.is_time(kind):
        made = ColumnType.STRING, f"CAST({column} AS VARCHAR)", None
    else:
        raise SourceRefused(
            f"the column {field.name} is a {kind}, which cannot travel as a trait",
            hint=f"CAST({field.name} AS VARCHAR), or leave it out",
        )
    return Carried(name=field.name, type=made[0], value=made[1], unusable=made[2])


def _integer(column: str) -> tuple[ColumnType, str, str]:
    value = f"TRY_CAST({column} AS BIGINT)"
    return ColumnType.INT64, value, f"{value} IS NULL AND {column} IS NOT NULL"


def _iso_time(column: str, *, zoned: bool) -> str:
    time = column if zoned else f"CAST({column} AS TIMESTAMP)"
    text = f"strftime({time}, '%Y-%m-%dT%H:%M:%S.%fZ')"
    return f"replace({text}, '.000000Z', 'Z')"


def keeps_type(was: ColumnType, now: ColumnType) -> bool | None:
    """Whether a column read as ``now`` today stays the ``was`` it is stored as.

    ``None``: only if every value fits, which ``fits`` asks in SQL.
    """
    if was is now or was is ColumnType.STRING:
        return True
    if now is ColumnType.STRING or {was, now} == {ColumnType.INT64, ColumnType.FLOAT64}:
        return None
    return False


def fits(column: str, was: ColumnType, now: ColumnType) -> str:
    """SQL: true when a value of ``now`` survives the way into ``was`` and back."""
    there = f"TRY_CAST({column} AS {SQL_TYPE[was]})"
    return f"{column} IS NOT DISTINCT FROM TRY_CAST({there} AS {SQL_TYPE[now]})"


def members_schema(columns: Columns) -> pa.Schema:
    fields = [pa.field("user_id", pa.string())]
    return pa.schema(fields + [pa.field(n, ARROW_TYPE[t]) for n, t in columns.items()])


def changes_schema(before: Columns, after: Columns) -> pa.Schema:
    fields = [
        pa.field("user_id", pa.string()),
        pa.field("before", pa.bool_()),
        pa.field("after", pa.bool_()),
    ]
    fields += [pa.field(f"before.{n}", ARROW_TYPE[t]) for n, t in before.items()]
    fields += [pa.field(f"after.{n}", ARROW_TYPE[t]) for n, t in after.items()]
    return pa.schema(fields)
