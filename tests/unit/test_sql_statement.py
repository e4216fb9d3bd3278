"""One SELECT, in every dialect's way of writing; and what becomes of ``:now``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from audience_sync.errors import SourceRefused
from audience_sync.sources.sql.dialects import aware, naive, text
from audience_sync.sources.sql.statement import bind, one_select

READS = [
    "SELECT 1",
    " select 1 ; ",
    "-- why\nSELECT 1 /* ; */ ;; -- done",
    "(SELECT 1) UNION ALL (SELECT 2)",
    "WITH a AS (SELECT 1), b (x) AS (SELECT 'delete; from' FROM a) SELECT * FROM b",
    "WITH RECURSIVE r AS (SELECT 1) SELECT * FROM r",
    "VALUES ('u1')",
    "FROM t",
    "SELECT 'a; DELETE FROM t', \"; insert into\" FROM t",
    'SELECT updated, inserted_at, "into" FROM deletes',
    "SELECT (SELECT 1) AS one",
]
DOES_NOT = [
    "",
    ";",
    "-- SELECT 1",
    "DELETE FROM t",
    "insert into t select 1",
    "UPDATE t SET a = 1",
    "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
    "CREATE TABLE t AS SELECT 1",
    "EXPLAIN ANALYZE DELETE FROM t",
    "CALL f()",
    "SET x = 1",
    "ATTACH 'other.db' AS other",
    "PRAGMA writable_schema = 1",
    "COPY t TO 'file'",
    "SELECT 1; SELECT 2",
    "SELECT 1; -- \nDROP TABLE t",
    "SELECT 1 INTO t",
    "SELECT 1 INTO OUTFILE '/tmp/x'",
    "WITH a AS (SELECT 1) DELETE FROM t",
    "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
    "WITH a AS (SELECT 1)",
    "(DELETE FROM t)",
]


@pytest.mark.parametrize("query", READS)
def test_what_reads_is_let_through(query: str) -> None:
    assert query.startswith(one_select(query, backslashes=False))


@pytest.mark.parametrize("query", DOES_NOT)
@pytest.mark.parametrize("backslashes", [True, False])
def test_what_does_not_is_refused(query: str, backslashes: bool) -> None:
    with pytest.raises(SourceRefused, match="a query must be one SELECT that only reads"):
        one_select(query, backslashes=backslashes)


def test_a_query_can_stand_in_brackets_afterwards() -> None:
    assert one_select("SELECT 1 ; -- done", backslashes=False) == "SELECT 1"


def test_mysql_s_strings_and_comments() -> None:
    query = r"""SELECT 'it\'s ; :now', "\" :now", `:now` # ; :now
    FROM t WHERE a < :now"""
    assert one_select(query, backslashes=True) == query
    bound = bind(query, "T", paramstyle="pyformat", backslashes=True)
    assert bound.text.count("%(now)s") == 1
    assert bound.text.endswith("a < %(now)s")
    with pytest.raises(SourceRefused):
        one_select(query, backslashes=False)


STYLES = {
    "qmark": ("a < ? AND b LIKE '50%' AND c > ?", ("T", "T")),
    "format": ("a < %s AND b LIKE '50%%' AND c > %s", ("T", "T")),
    "pyformat": ("a < %(now)s AND b LIKE '50%%' AND c > %(now)s", {"now": "T"}),
    "named": ("a < :now AND b LIKE '50%' AND c > :now", {"now": "T"}),
    "numeric": ("a < :1 AND b LIKE '50%' AND c > :1", ("T",)),
    "numeric_dollar": ("a < $1 AND b LIKE '50%' AND c > $1", ("T",)),
}


@pytest.mark.parametrize("style", STYLES)
def test_now_in_every_style_of_parameters(style: str) -> None:
    query = "a < :now AND b LIKE '50%' AND c > :now"
    bound = bind(query, "T", paramstyle=style, backslashes=False)
    assert (bound.text, bound.parameters) == STYLES[style]
    plain = bind("b LIKE '50%' -- :now", "T", paramstyle=style, backslashes=False)
    assert (plain.text, plain.parameters) == ("b LIKE '50%' -- :now", None)


def test_the_cycle_time_as_a_database_takes_it() -> None:
    eastern = datetime(2026, 1, 31, 20, 30, tzinfo=timezone(timedelta(hours=-5)))
    assert aware(eastern).utcoffset() == timedelta(0)
    assert naive(eastern).isoformat() == "2026-02-01T01:30:00"
    assert text(eastern) == "2026-02-01 01:30:00"
    assert text(datetime(2026, 2, 1, tzinfo=UTC)) == "2026-02-01 00:00:00"
