"""Placeholders and types: whatever the query says, and wherever a stream is cut into chunks."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audience_sync.errors import SourceRefused
from audience_sync.sources.query_text import fill_now
from audience_sync.sources.sql.columns import arrow_type, record_batches
from audience_sync.sources.sql.statement import PLACEHOLDERS, bind, one_select

FRAGMENTS = st.sampled_from(
    [
        ":now",
        "%",
        "%s",
        "%(now)s",
        "%%",
        "?",
        "$1",
        ":1",
        "'",
        '"',
        "`",
        "\\",
        "--",
        "/*",
        "*/",
        "#",
        "a",
        ";",
        "(",
        ")",
        "::",
        "$$",
        "SELECT",
        "é",
    ]
) | st.sampled_from(["\n", " ", "DELETE FROM t"])
TEXTS = st.lists(FRAGMENTS, max_size=12).map("".join)
PLAIN = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8)
LITERALS = TEXTS | PLAIN


@given(TEXTS, st.booleans())
def test_a_driver_that_formats_text_gets_the_query_back(query: str, backslashes: bool) -> None:
    """What ``%`` makes of the text is the query with the time in it, and nothing else."""
    expected, count = fill_now(query, "<T>", backslashes=backslashes)
    for style in ("format", "pyformat"):
        bound = bind(query, "<T>", paramstyle=style, backslashes=backslashes)
        if count:
            assert bound.text % bound.parameters == expected
        else:
            assert (bound.text, bound.parameters) == (query, None)


@given(TEXTS, st.sampled_from(sorted(PLACEHOLDERS)))
def test_as_many_parameters_as_tokens(query: str, style: str) -> None:
    bound = bind(query, "<T>", paramstyle=style, backslashes=False)
    _, count = fill_now(query, "", backslashes=False)
    wanted: dict[str, Any] = {"qmark": (("<T>",) * count), "format": (("<T>",) * count)}
    wanted |= {"numeric": ("<T>",), "numeric_dollar": ("<T>",)}
    assert bound.parameters == (wanted.get(style, {"now": "<T>"}) if count else None)


@given(st.lists(LITERALS, max_size=4), st.integers(0, 3))
def test_literals_and_comments_reach_the_database_as_they_are(
    texts: list[str], tokens: int
) -> None:
    literals = ["'" + text.replace("'", "''") + "'" for text in texts]
    comment = "/* :now ? ; ' */" + "".join(f"-- {t!r} :now ?\n".replace("*/", "") for t in texts)
    query = f"SELECT {', '.join([*literals, *[':now'] * tokens, 'NULL'])} {comment}\n;"
    bound = bind(one_select(query, backslashes=False), "T", paramstyle="qmark", backslashes=False)
    with sqlite3.connect(":memory:") as connection:
        (row,) = connection.execute(bound.text, bound.parameters or ()).fetchall()
    assert row == (*texts, *["T"] * tokens, None)


@given(st.lists(LITERALS, min_size=1, max_size=3), st.booleans())
def test_a_second_statement_is_seen_behind_any_literals(
    texts: list[str], backslashes: bool
) -> None:
    quoted = [text.replace("'", "''") for text in texts]
    if backslashes:
        quoted = [text.replace("\\", "\\\\") for text in quoted]
    query = "SELECT " + ", ".join(f"'{text}'" for text in quoted)
    assert one_select(query, backslashes=backslashes) == query
    for more in ("; DELETE FROM t", ";SELECT 1", " INTO t"):
        with pytest.raises(SourceRefused):
            one_select(query + more, backslashes=backslashes)


VALUES = st.one_of(
    st.none(),
    st.sampled_from([0, 1, -7, 2**53 + 1, 2**63 - 1, 2**64, 10**30]),
    st.sampled_from([0.0, 1.5, -2.0, math.inf]),
    st.sampled_from([Decimal("1"), Decimal("1.50"), Decimal("-0.001")]),
    st.sampled_from(["", "1", "1.5", "true", "é", "a\0b"]),
    st.booleans(),
    st.sampled_from([b"", b"1"]),
)
COLUMNS = st.lists(VALUES, max_size=8) | st.sampled_from([int, float, str, Decimal]).flatmap(
    lambda kind: st.lists(VALUES.filter(lambda v: v is None or type(v) is kind), max_size=8)
)


def read(column: Sequence[Any], sizes: Sequence[int]) -> list[Any] | None:
    """The column as it comes out when it goes in cut into chunks; ``None``: it was refused."""
    chunks, at = [], 0
    for size in [*sizes, len(column)]:
        chunks.append([(value,) for value in column[at : at + size]])
        at += size
    rest = next((v for v in column if v is not None), None)
    try:
        _, batches = record_batches(
            ["v"],
            (chunk for chunk in chunks if chunk),
            lambda name: arrow_type(name, [rest]) if rest is not None else None,
        )
        return [value for batch in batches for value in batch.column(0).to_pylist()]
    except SourceRefused:
        return None


@given(COLUMNS, st.lists(st.integers(1, 4), max_size=4))
def test_every_value_comes_out_as_it_went_in_or_the_read_is_refused(
    column: list[Any], sizes: list[int]
) -> None:
    found = read(column, sizes)
    if found is None:
        assert len({type(value) for value in column}) > 1
        return
    assert len(found) == len(column)
    for came, went in zip(found, column, strict=True):
        expected = went
        if isinstance(came, float) and isinstance(went, Decimal):
            expected = float(went)
        if isinstance(came, bytes) and isinstance(went, str):
            expected = went.encode()  # of bytes, which the engine refuses
        assert came == expected
        assert isinstance(came, str) == isinstance(expected, str)
