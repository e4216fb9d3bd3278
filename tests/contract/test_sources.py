"""What every source must do; a source joins by naming itself at the end."""

from __future__ import annotations

import csv
import sqlite3
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import psutil
import psycopg
import pytest
from sqlalchemy import make_url

from audience_sync.domain.audience import ColumnType
from audience_sync.engines.duckdb import DuckDBEngine
from audience_sync.errors import SourceFailed, SourceRefused
from audience_sync.pipeline.ports.reading import Source
from audience_sync.sources.files import FilesSource
from audience_sync.sources.freshness import Freshness
from audience_sync.sources.sql.source import SqlSource

NOW = datetime(2026, 2, 1, tzinfo=UTC)
SECRET = "jane.doe"
"""Stands in every row: it may be in no message."""

Person = tuple[str, str | None, int | None, float | None, str | None]
"""user_id, email, orders, score, loaded_at (ISO, UTC, no zone)."""

COLUMNS = ("user_id", "email", "orders", "score", "loaded_at")
PEOPLE: Sequence[Person] = (
    ("u1", f"{SECRET}@example.com", 3, 0.5, "2026-01-31 23:59:59"),
    ("u2", "ünï@example.com", None, 1.25, "2026-02-01 00:00:00"),
    ("u3", None, 1, None, "2026-02-01 00:00:01"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shop:
    """A source of people, and what stands after FROM for them.

    ``bad_value``: what cannot be computed of some of them.
    """

    people: str
    bad_value: str = "CAST(email AS INT)"
    fill: Callable[[Sequence[Person]], None]
    source: Callable[[Freshness | None], Source]


def rows(source: Source, query: str, now: datetime = NOW) -> list[tuple[Any, ...]]:
    with source.read(query, now) as reader:
        return [tuple(row.values()) for batch in reader for row in batch.to_pylist()]


def failure(source: Source, query: str) -> SourceFailed:
    """What a read raises, after looking that it shows nobody's data."""
    with pytest.raises(SourceFailed) as caught:
        rows(source, query)
    shown = "".join(traceback.format_exception(caught.value)) + str(caught.value.hint)
    assert SECRET not in shown
    assert "\n" not in str(caught.value)
    return caught.value


class SourceTests:
    def test_every_row_is_given(self, shop: Shop) -> None:
        """More than any batch or chunk on the way."""
        shop.fill([(f"u{n}", None, n, n / 4, None) for n in range(70_000)])
        query = f"SELECT user_id, orders, score FROM {shop.people}"
        found = rows(shop.source(None), query)
        assert sorted(found) == sorted((f"u{n}", n, n / 4) for n in range(70_000))

    def test_nobody_has_columns_too(self, shop: Shop) -> None:
        shop.fill(PEOPLE)
        query = f"SELECT user_id, email, score FROM {shop.people} WHERE 1 = 0"
        with shop.source(None).read(query, NOW) as reader:
            assert reader.schema.names == ["user_id", "email", "score"]
            assert reader.read_all().num_rows == 0

    def test_the_engine_sees_the_same_members(self, shop: Shop) -> None:
        """Whatever types a source has for them."""
        shop.fill(PEOPLE)
        query = f"SELECT user_id, email, orders, score FROM {shop.people}"
        with (
            duckdb.connect(":memory:") as con,
            shop.source(None).read(query, NOW) as reader,
            DuckDBEngine(con.cursor).compare(None, reader, reserved="vip") as found,
        ):
            members = [row for batch in found.members() for row in batch.to_pylist()]
            types = dict(found.columns)
        names = COLUMNS[:4]
        assert members == [dict(zip(names, person, strict=False)) for person in PEOPLE]
        expected = [ColumnType.STRING, ColumnType.INT64, ColumnType.FLOAT64]
        assert list(types.values()) == expected

    @pytest.mark.parametrize(
        ("condition", "found"),
        [
            ("loaded_at <= :now", ["u1", "u2"]),
            ("loaded_at < :now", ["u1"]),
            ("loaded_at > :now AND loaded_at >= :now", ["u3"]),
            ("loaded_at = :now OR user_id = ' :now' -- :now %s ?", ["u2"]),
        ],
    )
    def test_now_is_the_cycle_time_in_utc(
        self, shop: Shop, condition: str, found: list[str]
    ) -> None:
        shop.fill(PEOPLE)
        query = f"SELECT user_id FROM {shop.people} WHERE {condition}\nORDER BY user_id"
        assert [user for (user,) in rows(shop.source(None), query)] == found

    @pytest.mark.parametrize("more", ["", " AND loaded_at <> :now"])
    def test_the_rest_of_the_query_is_nobody_s_placeholder(self, shop: Shop, more: str) -> None:
        shop.fill(PEOPLE)
        texts = "'100 %' AS a, '%s %(now)s' AS b, ':now ?' AS c, 'it''s $1 $now' AS d"
        query = f"SELECT {texts} FROM {shop.people} WHERE email LIKE '%jane%'{more};"
        assert rows(shop.source(None), query) == [("100 %", "%s %(now)s", ":now ?", "it's $1 $now")]

    @pytest.mark.parametrize(
        "query",
        [
            "SELECT user_id, emial FROM PEOPLE",
            "SELECT user_id FROM nowhere",
            "SELECT user_id FRM PEOPLE",
            "SELECT user_id FROM PEOPLE WHERE",
            "DELETE FROM PEOPLE",
            "INSERT INTO PEOPLE SELECT * FROM PEOPLE",
            "CREATE TABLE copy AS SELECT * FROM PEOPLE",
            "DROP TABLE PEOPLE",
            "SELECT 1 AS user_id; SELECT 2 AS user_id",
            "SELECT 1 AS user_id; DELETE FROM PEOPLE",
            "WITH p AS (SELECT user_id FROM PEOPLE) DELETE FROM PEOPLE",
            ";",
        ],
    )
    def test_a_query_that_cannot_be_used_is_refused(self, shop: Shop, query: str) -> None:
        shop.fill(PEOPLE)
        source = shop.source(None)
        assert isinstance(failure(source, query.replace("PEOPLE", shop.people)), SourceRefused)
        assert len(rows(source, f"SELECT user_id FROM {shop.people}")) == 3

    def test_a_value_that_the_query_cannot_use_is_refused_without_it(self, shop: Shop) -> None:
        shop.fill(PEOPLE)
        query = f"SELECT user_id, {shop.bad_value} AS n FROM {shop.people}"
        assert isinstance(failure(shop.source(None), query), SourceRefused)

    def test_a_read_that_is_given_up_leaves_nothing_behind(self, shop: Shop) -> None:
        shop.fill([(f"u{n}", None, n, n / 4, None) for n in range(70_000)])
        source = shop.source(None)
        query = f"SELECT a.user_id FROM {shop.people} a, {shop.people} b"
        threads, children = set(threading.enumerate()), children_of_this()
        with source.read(query, NOW) as reader:
            assert reader.read_next_batch().num_rows <= 65_536
        assert set(threading.enumerate()) <= threads
        assert children_of_this() <= children
        assert len(rows(source, f"SELECT user_id FROM {shop.people}")) == 70_000

    def test_two_reads_may_be_open_at_once(self, shop: Shop) -> None:
        shop.fill(PEOPLE)
        source, query = shop.source(None), f"SELECT user_id FROM {shop.people}"
        with source.read(query, NOW) as one, source.read(query, NOW) as other:
            assert other.read_all().num_rows == one.read_all().num_rows == 3

    @pytest.mark.parametrize(
        ("query", "hours", "stale"),
        [
            ("SELECT max(loaded_at) FROM PEOPLE", 24, False),
            ("SELECT max(loaded_at) FROM PEOPLE WHERE loaded_at < :now", 1, False),
            ("SELECT min(loaded_at) AS t FROM PEOPLE WHERE user_id = 'u0'", 2, True),
            ("SELECT max(loaded_at) FROM PEOPLE WHERE user_id = 'nobody'", 24, True),
            ("SELECT loaded_at FROM PEOPLE WHERE user_id = 'nobody'", 24, True),
        ],
    )
    def test_stale_data_fails_the_read(
        self, shop: Shop, query: str, hours: int, stale: bool
    ) -> None:
        shop.fill([*PEOPLE, ("u0", None, None, None, "2026-01-31 21:59:59")])
        query = query.replace("PEOPLE", shop.people)
        source = shop.source(Freshness(max_age=timedelta(hours=hours), query=query))
        people = f"SELECT user_id FROM {shop.people}"
        if not stale:
            assert len(rows(source, people)) == 4
            return
        error = failure(source, people)
        assert not isinstance(error, SourceRefused)
        assert "stale: " in str(error)

    @pytest.mark.parametrize(
        "query",
        [
            "SELECT loaded_at FROM PEOPLE",
            "SELECT user_id, loaded_at FROM PEOPLE WHERE user_id = 'u1'",
            "SELECT max(orders) FROM PEOPLE",
            "SELECT max(email) FROM PEOPLE",
            "SELECT max(loadd_at) FROM PEOPLE",
        ],
    )
    def test_freshness_that_is_not_one_time_is_refused(self, shop: Shop, query: str) -> None:
        shop.fill(PEOPLE)
        query = query.replace("PEOPLE", shop.people)
        source = shop.source(Freshness(max_age=timedelta(days=1), query=query))
        assert isinstance(failure(source, f"SELECT user_id FROM {shop.people}"), SourceRefused)


def children_of_this() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def sql_source(url: str, freshness: Freshness | None = None, **more: Any) -> SqlSource:
    given: dict[str, Any] = {"connect_args": {}, "timeout": timedelta(seconds=60)} | more
    return SqlSource(name="shop", url=url, freshness=freshness, **given)


class TestFiles(SourceTests):
    @pytest.fixture
    def shop(self, tmp_path: Path) -> Iterator[Shop]:
        def fill(people: Sequence[Person]) -> None:
            with (tmp_path / "people.csv").open("w", newline="") as file:
                csv.writer(file).writerows([COLUMNS, *people])

        with duckdb.connect(":memory:") as instance:
            yield Shop(
                people="'people.csv'",
                fill=fill,
                source=lambda f: FilesSource(root=tmp_path, connect=instance.cursor, freshness=f),
            )


class TestSqlite(SourceTests):
    @pytest.fixture
    def shop(self, tmp_path: Path) -> Shop:
        path = tmp_path / "shop 100%.db"

        def fill(people: Sequence[Person]) -> None:
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.execute(
                    "CREATE TABLE people (user_id TEXT, email TEXT, orders INT, score REAL, "
                    "loaded_at TEXT)"
                )
                connection.executemany("INSERT INTO people VALUES (?, ?, ?, ?, ?)", people)

        return Shop(
            people="people",
            bad_value="abs(-9223372036854775807 - orders)",
            fill=fill,
            source=lambda f: sql_source(f"sqlite:///{path}", f),
        )


class TestPostgresql(SourceTests):
    @pytest.fixture
    def shop(self, postgres_url: str) -> Shop:
        def fill(people: Sequence[Person]) -> None:
            with psycopg.connect(native(postgres_url)) as connection:
                connection.execute(
                    "CREATE TABLE people (user_id text, email text, orders int, score float, "
                    "loaded_at timestamptz)"
                )
                into = "COPY people FROM STDIN"
                with connection.cursor() as cursor, cursor.copy(into) as copy:
                    for *values, loaded_at in people:
                        copy.write_row([*values, loaded_at and f"{loaded_at}+00"])

        return Shop(people="people", fill=fill, source=lambda f: sql_source(postgres_url, f))


class TestDuckDb(SourceTests):
    @pytest.fixture
    def shop(self, tmp_path: Path) -> Shop:
        path = tmp_path / "shop.duckdb"

        def fill(people: Sequence[Person]) -> None:
            file = tmp_path / "people.csv"
            with file.open("w", newline="") as lines:
                csv.writer(lines).writerows([COLUMNS, *people])
            with duckdb.connect(str(path)) as connection:
                connection.execute(
                    "CREATE TABLE people (user_id VARCHAR, email VARCHAR, orders INT, "
                    "score DOUBLE, loaded_at TIMESTAMP)"
                )
                connection.execute(f"COPY people FROM '{file}' (HEADER)")

        return Shop(people="people", fill=fill, source=lambda f: sql_source(f"duckdb:///{path}", f))


def native(url: str) -> str:
    """What psycopg takes, of a URL for SQLAlchemy."""
    parts = make_url(url)
    return f"host={parts.query['host']} user={parts.username} dbname={parts.database}"
