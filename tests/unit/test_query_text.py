"""Only the token ``:now`` outside strings, names and comments is filled in."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audience_sync.sources.query_text import call_at, fill_now, pieces, quoted_at

FILLED = {
    "SELECT :now": "SELECT $now",
    "WHERE a<=:now AND a>:now - INTERVAL 30 DAY": "WHERE a<=$now AND a>$now - INTERVAL 30 DAY",
    "SELECT :now::date": "SELECT $now::date",
    "SELECT (:now)": "SELECT ($now)",
    "SELECT {'t': :now}": "SELECT {'t': $now}",
    "-- :now\n:now": "-- :now\n$now",
    "-- :now\r:now": "-- :now\r$now",
    "/* /* :now */ :now */ :now": "/* /* :now */ :now */ $now",
    "$$ :now $$ :now": "$$ :now $$ $now",
    "$t$ :now $$ $t$ :now": "$t$ :now $$ $t$ $now",
    "a$b$ :now $b$": "a$b$ $now $b$",
    r"e'it\' :now' :now": r"e'it\' :now' $now",
    "note':now' :now": "note':now' $now",
    "'it''s :now' :now": "'it''s :now' $now",
    '"a"" :now" :now': '"a"" :now" $now',
    "'--' :now": "'--' $now",
    "'/*' :now '*/'": "'/*' $now '*/'",
}
UNTOUCHED = [
    "SELECT a::int",
    "SELECT ' :vip :now'",
    'SELECT ":now"',
    "SELECT a[1:now]",
    "SELECT {'t':now()}",
    "SELECT {'t' :now()}",
    "SELECT now::date",
    "SELECT :nowish, :now_, :now1, :now$, :NOW",
    "SELECT x::now",
    "SELECT 1 -- :now",
    "SELECT 1 /* :now",
    "SELECT ' :now",
    "SELECT $$ :now",
    "",
]


@pytest.mark.parametrize(("query", "filled"), FILLED.items())
def test_a_now_outside_strings_and_comments_is_filled_in(query: str, filled: str) -> None:
    assert fill_now(query, "$now") == (filled, filled.count("$now"))


@pytest.mark.parametrize("query", UNTOUCHED)
def test_every_other_colon_belongs_to_the_query(query: str) -> None:
    assert fill_now(query, "$now") == (query, 0)


FRAGMENTS = st.sampled_from(
    [
        ":now", ":", "::", "'", "''", '"', "--", "\n", "/*", "*/", "$$", "$a$", "e'", "\\", "a",
        "[1:", "(", ")", " ", "é", "1", ",",
    ]
)  # fmt: skip


@given(st.lists(FRAGMENTS, max_size=30).map("".join))
def test_what_is_not_a_token_comes_out_as_it_went_in(query: str) -> None:
    filled, count = fill_now(query, "\0")
    assert filled.replace("\0", ":now") == query
    assert filled.count("\0") == count


@given(st.lists(FRAGMENTS, max_size=30).map("".join))
def test_pieces_are_in_order_and_do_not_overlap(query: str) -> None:
    ends = [0]
    for piece in pieces(query):
        assert ends[-1] <= piece.start < piece.end <= len(query)
        ends.append(piece.end)


CONTENT = st.text(alphabet="':now$/*-\"\\e[ \n", max_size=12)
TOKENS = st.sampled_from([":now", ":now::date", "(:now)", "1 + :now"])
OPAQUE = st.one_of(
    CONTENT.map(lambda text: "'" + text.replace("'", "''") + "'"),
    CONTENT.map(lambda text: '"x' + text.replace('"', '""') + '"'),
    CONTENT.map(lambda text: "e'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"),
    CONTENT.map(lambda text: "$q$" + text.replace("$", "") + "$q$"),
    CONTENT.map(lambda text: "/* " + text.replace("/", "") + " */ 1"),
    CONTENT.map(lambda text: "/* /* :now */ " + text.replace("/", "") + " */ 1"),
    CONTENT.map(lambda text: "--" + text.replace("\n", "") + "\n1"),
    st.sampled_from(["x::int", "[1, 2][1:2]", "{'now':now()}", "x[1:now]"]),
)


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:") as con:
        yield con


@given(st.lists(TOKENS | OPAQUE, min_size=1, max_size=5))
def test_duckdb_finds_the_same_strings_and_comments(
    con: duckdb.DuckDBPyConnection, parts: list[str]
) -> None:
    tokens = [part for part in parts if part in {":now", ":now::date", "(:now)", "1 + :now"}]
    filled, count = fill_now("SELECT " + ", ".join(parts), "$now")
    assert count == len(tokens)
    (statement,) = con.extract_statements(filled)
    assert set(statement.named_parameters) == ({"now"} if tokens else set())


def test_a_name_is_found_in_quotes_or_plain() -> None:
    query = "SELECT 'a.csv' FROM t: 'it''s.csv' JOIN b.csv"
    assert quoted_at(query, "it's.csv", 20, 34) == (23, 34)
    assert quoted_at(query, "b.csv", 40, 45) == (40, 45)
    assert quoted_at(query, "c.csv", 20, 45) is None


def test_a_call_ends_at_its_own_bracket() -> None:
    query = "FROM t: READ_CSV('a).csv' /* ) */, quote := '(', types = f(1)) AS t(x)"
    start, end = call_at(query, "read_csv", 5, len(query)) or (0, 0)
    assert query[start:end] == "READ_CSV('a).csv' /* ) */, quote := '(', types = f(1))"
    assert call_at("FROM f('", "f", 5, 8) is None
