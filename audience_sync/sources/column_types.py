"""The types of columns whose file does not state them: what was guessed, unless it loses text.

DuckDB reads ``0x10`` as 16, ``T`` as true, ``01/02/2026`` as a day in February or in January,
depending on the other rows, and a UUID in lower case. An id or a trait would change without a
word. So a guess is kept only where every value can be had back from it; else the column is text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

import duckdb

from audience_sync.sources.quoting import literal, quoted

Types = Mapping[str, str]
"""Columns with DuckDB's names of their types."""

TEXT = "VARCHAR"
WHOLE = "CAST(TRY_CAST({0} AS BIGINT) AS VARCHAR) = {0}"
YEAR_FIRST = "regexp_matches({0}, '^[0-9]{{4}}[-/]')"
LOSES_NOTHING: Mapping[str, str] = MappingProxyType(
    {
        "BIGINT": WHOLE,
        "HUGEINT": WHOLE,
        "BIGNUM": WHOLE,
        "BOOLEAN": "lower({0}) IN ('true', 'false')",
        "DOUBLE": "NOT regexp_full_match({0}, '[+-]?[0-9]{{16,}}')",
        "DATE": YEAR_FIRST,
        "TIMESTAMP": YEAR_FIRST,
        "TIMESTAMP WITH TIME ZONE": YEAR_FIRST,
    }
)
"""By guessed type: SQL over a value's text, without white space around it."""

STATED = MappingProxyType(
    {"thousands": WHOLE, "dateformat": YEAR_FIRST, "timestampformat": YEAR_FIRST}
)
"""Options that say how such values are written, so that nothing is guessed."""


def doubtful(types: Types, options: Collection[str]) -> list[str]:
    """The columns whose values must be looked at before their type is believed."""
    said = {test for option, test in STATED.items() if option in options}
    return [name for name, type_ in types.items() if LOSES_NOTHING.get(type_) not in {None, *said}]


def losing(
    con: duckdb.DuckDBPyConnection, types: Types, names: Collection[str], texts: str
) -> Iterator[str]:
    """Those of ``names`` in which a value would not survive its type.

    Args:
        texts: SQL of a table that has these columns as text.
    """
    if not names:
        return
    tests = ", ".join(_test(name, types[name]) for name in names)
    (found,) = con.execute(f"SELECT {tests} FROM {texts}").fetchall()
    yield from (name for name, survives in zip(names, found, strict=True) if not survives)


def _test(name: str, type_: str) -> str:
    column = quoted(name)
    test = LOSES_NOTHING[type_].format(f"trim({column})")
    return f"coalesce(bool_and({column} IS NULL OR coalesce({test}, false)), true)"


def as_struct(types: Types) -> str:
    """``{'n': 'BIGINT'}`` as a literal of SQL."""
    pairs = (f"{literal(name)}: {literal(type_)}" for name, type_ in types.items())
    return f"{{{', '.join(pairs)}}}"
