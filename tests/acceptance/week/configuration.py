"""The configuration of the week, and its two sizes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from audience_sync.domain.schedule import parse_every
from tests.acceptance.week.world import Planned

BATCH, CONCURRENCY = 25, 4
MAIN, SECOND, LINES = "main", "second", "lines"

TOP = """
[store]
url = "${STORE_URL}"

[guard]                 # much changes within one compressed day, on purpose
max_exits = "100%"
max_exits_24h = "100%"
floor = 1000000

[engine]
memory_limit = "256MB"
threads = 1

[sources.warehouse]
type = "sql"
url = "${WAREHOUSE_URL}"
timeout = "60s"

[sources.exports]
type = "files"
root = "exports"

[destinations.lines]
type = "ndjson"
path = "calls.ndjson"
"""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Seconds of the week in which something goes wrong, every so many seconds on average."""

    start: float
    end: float
    every: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Size:
    """How long, how many, and what goes wrong when (seconds from the start)."""

    seconds: float
    writing: float
    """Seconds that it takes to write the sources."""
    kills: tuple[Stretch, ...]
    stops: tuple[Stretch, ...] = ()
    """In each one daemon is stopped with SIGSTOP from start to end."""
    down: Stretch
    """The second destination cannot be reached."""
    late: float
    """When the last audiences come in."""
    rate: int
    """Of the main destination, in calls a second."""
    latency: float
    audiences: tuple[Planned, ...]


def small() -> Size:
    everywhere, most = (MAIN, SECOND), (MAIN,)
    return Size(
        seconds=20.0,
        writing=1.0,
        kills=(Stretch(start=4.0, end=13.0, every=2.5),),
        down=Stretch(start=6.0, end=11.0),
        late=3.0,
        rate=250,
        latency=0.02,
        audiences=(
            _planned("settled", "csv", "5s", 5, (MAIN, SECOND, LINES), 40, comes=0),
            _planned("staff", "sql", "5s", 5, most, 40, comes=0),
            _planned("bought", "sql", "2s..3s", 3, everywhere, 120),
            _planned("visited", "csv", "2s..3s", 3, (MAIN, LINES), 120),
            _planned("tiers", "parquet", "4s", 4, most, 80, ("email", "tier")),
            _planned("spent", "csv", "3s..4s", 4, everywhere, 80, ("value",)),
            _planned("everybody", "parquet", "6s", 6, most, 3000, comes=2),
        ),
    )


def large() -> Size:
    """168 hours of five seconds each."""
    hour, everywhere, most = 5.0, (MAIN, SECOND), (MAIN,)
    every = {1: "5s", 3: "15s", 6: "30s", 24: "120s"}
    drawn = "10s..15s"  # 2h..3h
    tiers, value = ("email", "tier"), ("value",)
    return Size(
        seconds=168 * hour,
        writing=8.0,
        kills=(
            Stretch(start=12 * hour, end=40 * hour, every=10.0),
            Stretch(start=60 * hour, end=80 * hour, every=8.0),
            Stretch(start=118 * hour, end=140 * hour, every=12.0),
        ),
        stops=(
            Stretch(start=42 * hour, end=57 * hour),
            Stretch(start=84 * hour, end=99 * hour),
            Stretch(start=100 * hour, end=115 * hour),
        ),
        down=Stretch(start=66 * hour, end=92 * hour),
        late=20 * hour,
        rate=100,
        latency=0.05,
        audiences=(
            _planned("settled", "csv", every[6], 30, (MAIN, SECOND, LINES), 200, comes=0),
            _planned("staff", "sql", every[6], 30, most, 40, comes=0),
            _planned("bought", "sql", drawn, 15, everywhere, 600),
            _planned("visited", "csv", drawn, 15, (MAIN, LINES), 600),
            _planned("looked", "parquet", drawn, 15, most, 600),
            _planned("asked", "sql", drawn, 15, most, 400),
            _planned("spent", "csv", drawn, 15, everywhere, 400, value),
            _planned("tiers", "parquet", drawn, 15, most, 400, tiers),
            _planned("new", "csv", every[1], 5, most, 200),
            _planned("online", "parquet", every[1], 5, most, 200),
            _planned("returned", "sql", every[3], 15, everywhere, 300),
            _planned("complained", "csv", every[3], 15, most, 300),
            _planned("ordered", "sql", every[3], 15, most, 300, value),
            _planned("in_cart", "parquet", every[6], 30, everywhere, 300),
            _planned("subscribed", "sql", every[6], 30, most, 300),
            _planned("churn_risk", "sql", "30s..60s", 60, (MAIN, LINES), 300, tiers),
            _planned("lifetime", "parquet", "30s..60s", 60, most, 300, value),
            _planned("winback", "sql", every[24], 120, everywhere, 300),
            _planned("by_the_minute", "sql", "* * * * *", 60, most, 200),
            _planned("everybody", "parquet", every[24], 120, most, 36_000, comes=2, moves=0.02),
        ),
    )


def _planned(
    key: str,
    kept: str,
    every: str,
    longest: float,
    destinations: tuple[str, ...],
    members: int,
    columns: tuple[str, ...] = ("email",),
    comes: int = 1,
    moves: float = 0.2,
) -> Planned:
    return Planned(
        key=key,
        kept=kept,
        every=every,
        shortest=0.0 if " " in every else parse_every(every).shortest.total_seconds(),
        longest=longest,
        destinations=destinations,
        members=members,
        columns=columns,
        comes=comes,
        moves=moves,
    )


def configuration(audiences: Sequence[Planned], size: Size, endpoints: Mapping[str, str]) -> str:
    rates, calls = (
        {MAIN: size.rate, SECOND: 1000},
        {MAIN: ["identify"], SECOND: ["identify", "track"]},
    )
    parts = [TOP]
    for name, endpoint in endpoints.items():
        parts.append(
            f'[destinations.{name}]\ntype = "segment"\nwrite_key = "${{WRITE_KEY}}"\n'
            f'endpoint = "{endpoint}"\nrate = "{rates[name]}/s"\nreserve = "25%"\n'
            f"calls = {json.dumps(calls[name])}\nbatch = {BATCH}\nconcurrency = {CONCURRENCY}\n"
        )
    return "\n".join([*parts, *(_table(planned) for planned in audiences)])


def _table(planned: Planned) -> str:
    source = "warehouse" if planned.kept == "sql" else "exports"
    tell = "" if planned.is_trait else f"tell = {json.dumps(sorted(planned.tell))}\n"
    return (
        f'[[{"computed_traits" if planned.is_trait else "audiences"}]]\nname = "{planned.key}"\n'
        f'source = "{source}"\nevery = "{planned.every}"\nquery = """{planned.query()}"""\n'
        f"destinations = {json.dumps(planned.destinations)}\n{tell}"
    )
