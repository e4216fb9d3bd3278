"""Measure the program on this machine, beside what bounds it: ``python -m bench``.

Times of a busy or virtual machine say little; ratios to a limit that was measured in the same
minutes say more. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import databases, measured, workload

MEMORY_LIMIT = "768MB"
"""The program's default; the limit is measured under the same."""
PARTS = ("load", "compare", "store")


def main() -> None:
    arguments = _arguments()
    with _folder(arguments.folder, arguments.rows) as folder:
        workload.configuration(Path(folder), "http://127.0.0.1:9/v1")
        limit = measured.run("bench.limit", [folder, MEMORY_LIMIT])
        _captures(measured.run("bench.cycles", [folder]), limit, arguments.rows)
    with _folder(arguments.folder, arguments.calls) as folder:
        found = measured.run("bench.delivery", [folder, str(arguments.calls)])
        _delivery(found, arguments.calls)
    with _databases(arguments.folder, arguments.read) as places:
        _say(f"\nreading {arguments.read:,} rows of user_id and an e-mail from a database")
        for kind, place in places.items():
            found = measured.run("bench.sources", [kind, place, str(arguments.read)])
            _reading(kind, found, arguments.read)


@contextmanager
def _folder(parent: Path | None, rows: int) -> Iterator[str]:
    """A folder for a while, with two days of ``rows`` members in it."""
    with tempfile.TemporaryDirectory(prefix="audience-sync-bench-", dir=parent) as folder:
        _say(f"making two days of {rows:,} members …")
        measured.run("bench.workload", [folder, str(rows)])
        yield folder


@contextmanager
def _databases(parent: Path | None, rows: int) -> Iterator[dict[str, str]]:
    """A PostgreSQL and a SQLite file with ``rows`` people."""
    with tempfile.TemporaryDirectory(prefix="audience-sync-bench-", dir=parent) as folder:
        path = Path(folder) / "people.db"
        with databases.serving(Path(folder)) as conninfo:
            measured.run("bench.databases", [conninfo, str(path), str(rows)])
            yield {"postgresql": conninfo, "sqlite": str(path)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="members that are captured")
    parser.add_argument("--calls", type=int, default=20_000, help="calls that are delivered")
    parser.add_argument("--read", type=int, default=2_000_000, help="rows read from a database")
    parser.add_argument("--folder", type=Path, help="where files are made meanwhile")
    return parser.parse_args()


def _captures(found: Mapping[str, Any], limit: Mapping[str, Any], rows: int) -> None:
    bounds: dict[str, float] = limit["seconds"]
    _say(f"\ncapture of {rows:,} members with an e-mail, {MEMORY_LIMIT} for DuckDB")
    _say(f"  {'':24}" + "".join(f"{part:>9}" for part in (*PARTS, "all")))
    for name, laps in (("first", found["first"]), ("1 % changed", found["cycle"])):
        seconds = [laps.get(part, 0.0) for part in PARTS]
        _say(f"  {name:24}" + "".join(f"{s:7.2f} s" for s in (*seconds, sum(seconds))))
    cycle = sum(found["cycle"].values())
    for name, bound in bounds.items():
        _say(f"  {'bare join, ' + name:24}{bound:34.2f} s   cycle is {cycle / bound:.1f} ×")
    _say(
        f"  peak memory {found['peak'] / 1e6:,.0f} MB (bare join {limit['peak'] / 1e6:,.0f} MB), "
        f"stored {found['stored'] / 1e6:,.0f} MB"
    )


def _delivery(found: Mapping[str, Any], calls: int) -> None:
    ours, bare = calls / found["seconds"], calls / found["bare"]
    _say(
        f"\ndelivery of {calls:,} calls to this machine, "
        f"{found['requests']} requests of {found['bytes'] / found['requests'] / 1e3:,.0f} kB"
    )
    _say(f"  audience-sync           {ours:10,.0f} calls/s")
    _say(f"  bare httpx, same bytes  {bare:10,.0f} calls/s   we reach {ours / bare:.2f} ×")
    _say(f"  peak memory {found['peak'] / 1e6:,.0f} MB")


def _reading(kind: str, found: Mapping[str, Any], rows: int) -> None:
    ours, bare = rows / found["ours"], rows / found["bare"]
    _say(
        f"  {kind:12} {ours / 1e6:5.2f} M rows/s to Arrow   the driver's own loop "
        f"{bare / 1e6:5.2f} M rows/s   we reach {ours / bare:.2f} ×"
    )
    _say(
        f"  {'':12} peak memory {found['peak'] / 1e6:,.0f} MB, "
        f"of the process that reads {found['reading'] / 1e6:,.0f} MB"
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
