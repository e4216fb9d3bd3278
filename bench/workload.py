"""Two days of a large audience as Parquet files, and a configuration that syncs it."""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

from bench.measured import report

CHANGED = 0.01
"""Of the members, on the second day: half of them exit and as many enter, half are updated."""

# Ids and e-mails are random text, which neither sorts nor compresses well; rows are in no order.
DAY = """
SELECT substr(md5('id' || number), 1, 28) AS user_id,
       substr(md5('mail' || number || edition), 1, 12) || '@example.com' AS email
FROM (
    SELECT if($day = 1 AND i % $every = 3, i + $rows, i) AS number,
           if($day = 1 AND i % $every = 7, $day, 0) AS edition
    FROM range($rows) t(i)
)
ORDER BY hash(number + $day)
"""

CONFIG = """
[store]
url = "sqlite:///state.db"

[guard]
max_initial = 1_000_000_000

[sources.files]
type = "files"
root = "."

[destinations.segment]
type = "segment"
write_key = "${BENCH_KEY}"
endpoint = "ENDPOINT"
rate = "1000000/s"

[[audiences]]
name = "Everyone"
source = "files"
query = "SELECT * FROM 'today.parquet'"
destinations = ["segment"]
"""
ENVIRONMENT = {"BENCH_KEY": "a-key-for-loopback-only"}


def day_file(folder: Path, day: int) -> Path:
    return folder / f"day{day}.parquet"


def today(folder: Path, day: int) -> None:
    """Make the file of ``day`` the one that the audience's query reads."""
    link = folder / "today.parquet"
    link.unlink(missing_ok=True)
    link.hardlink_to(day_file(folder, day))


def configuration(folder: Path, endpoint: str) -> Path:
    path = folder / "config.toml"
    path.write_text(CONFIG.replace("ENDPOINT", endpoint))
    return path


def main(folder: Path, rows: int) -> None:
    every = round(2 / CHANGED)
    with duckdb.connect(":memory:") as con:
        for day in range(2):
            parameters = {"day": day, "rows": rows, "every": every}
            con.sql(DAY, params=parameters).write_parquet(str(day_file(folder, day)))
    report({})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
