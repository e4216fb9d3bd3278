"""The limit: DuckDB's bare full outer join of the two files, that counts and stores nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

from bench.measured import report, timed
from bench.workload import day_file

IDS = """
SELECT count(*) FILTER (b.user_id IS NULL), count(*) FILTER (a.user_id IS NULL)
FROM before b FULL OUTER JOIN after a ON a.user_id = b.user_id
"""
IDS_AND_EMAILS = """
SELECT count(*) FILTER (b.user_id IS NULL), count(*) FILTER (a.user_id IS NULL),
       count(*) FILTER (b.email <> a.email)
FROM before b FULL OUTER JOIN after a ON a.user_id = b.user_id
"""


def main(folder: Path, memory_limit: str) -> None:
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory_limit,
        "temp_directory": str(folder / "spill"),
    }
    seconds: dict[str, float] = {}
    with duckdb.connect(":memory:", config=settings) as con:
        for day, name in enumerate(("before", "after")):
            con.read_parquet(str(day_file(folder, day))).create_view(name)
        for name, sql in (("ids", IDS), ("ids and e-mails", IDS_AND_EMAILS)):
            with timed(seconds, name):
                con.sql(sql).fetchall()
    report({"seconds": seconds})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
