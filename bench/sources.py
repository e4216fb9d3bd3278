"""One database: our source from the query to Arrow, beside the driver's own loop over its rows."""

from __future__ import annotations

import resource
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import psycopg

from audience_sync.sources.sql.source import SqlSource
from bench.measured import report, timed

QUERY = "SELECT user_id, email FROM people"
ROUNDS = 3
"""The best counts."""
BATCH = 4096


def bare_postgres(place: str) -> int:
    with psycopg.connect(place) as connection, connection.cursor() as cursor:
        return sum(1 for _ in cursor.stream(QUERY, size=1000))


def bare_sqlite(place: str) -> int:
    rows = 0
    with closing(sqlite3.connect(place)) as connection:
        cursor = connection.execute(QUERY)
        while people := cursor.fetchmany(BATCH):
            rows += len(people)
    return rows


def ours(url: str) -> int:
    source = SqlSource(name="bench", url=url, connect_args={}, timeout=timedelta(hours=1))
    with source.read(QUERY, datetime(2026, 1, 1, tzinfo=UTC)) as reader:
        return sum(batch.num_rows for batch in reader)


def main(kind: str, place: str, rows: int) -> None:
    bare = bare_postgres if kind == "postgresql" else bare_sqlite
    url = f"sqlite:///{place}"
    if kind == "postgresql":
        host = place.partition(" ")[0].removeprefix("host=")
        url = f"postgresql://postgres@/postgres?host={quote(host)}"
    laps: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(ROUNDS):
        for name, read, at in (("bare", bare, place), ("ours", ours, url)):
            seconds: dict[str, float] = {}
            with timed(seconds, name):
                found = read(at)
            if found != rows:
                raise SystemExit(f"{found} of {rows} rows were read")
            laps[name].append(seconds[name])
    reading = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    report({name: min(seconds) for name, seconds in laps.items()} | {"reading": reading * unit})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
