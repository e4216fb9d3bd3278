"""``kill -9`` in capture and in delivery, again and again; then everything is as if undisturbed.

Real processes, a SQLite store, and a Segment that fails 5 % of the requests (P1, P2, P4, P5, P8).
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.tracking_api import Served, serve

TOP = Path(__file__).parents[2]
CONCURRENCY, BATCH = 4, 40
LATENCY = 0.08
KILLS = 8
FAULTS = 30
"""At most so many requests fail, so that repeats within a run have a bound."""

CONFIGURATION = f"""
[store]
url = "sqlite:///state.db"

[guard]                 # half of the members change between two runs, on purpose
max_exits = "100%"
max_exits_24h = "100%"

[sources.shop]
type = "files"
root = "."

[destinations.segment]
type = "segment"
write_key = "${{WRITE_KEY}}"
endpoint = "ENDPOINT"
rate = "2000/s"
calls = CALLS
concurrency = {CONCURRENCY}
batch = {BATCH}
deadline = "1s"

[[audiences]]
name = "Vip"
source = "shop"
query = "SELECT user_id, email FROM 'members.csv'"
destinations = ["segment"]
"""


@dataclass
class Shop:
    """A configuration, a source and a store in ``folder``, and the server that is told."""

    folder: Path
    served: Served
    each: Collection[str] = ("identify",)
    """The calls of each change."""
    ends: list[int] = field(default_factory=list)
    """Calls that the server had accepted at the end of each run."""
    killed: list[str] = field(default_factory=list)
    """Where each kill fell: ``capture``, ``deliver`` or ``between``."""
    read: int = 0
    lines: int = 0

    def __post_init__(self) -> None:
        text = CONFIGURATION.replace("ENDPOINT", self.served.endpoint)
        text = text.replace("CALLS", json.dumps(list(self.each)))
        (self.folder / "config.toml").write_text(text)

    def members(self, user_ids: Collection[str]) -> None:
        """The source, from now on."""
        rows = [f"{user_id},{user_id}@example.com" for user_id in user_ids]
        (self.folder / "new.csv").write_text("\n".join(["user_id,email", *rows, ""]))
        (self.folder / "new.csv").rename(self.folder / "members.csv")

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "audience_sync", "sync", "--all", "--json"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(TOP), "WRITE_KEY": "test"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self) -> list[dict[str, Any]]:
        """One undisturbed run; what it delivered."""
        with self.start() as process:
            output, errors = process.communicate(timeout=60)
        self.ends.append(self.accepted())
        assert process.returncode == 0, output + errors
        assert errors == "" or errors.startswith("new store: ")
        return list(json.loads(output)["deliveries"])

    def kill(self, reached: Callable[[], bool]) -> bool:
        """One run, killed when it has ``reached`` a point; whether it got so far."""
        before = self.leases()
        with self.start() as process:
            try:
                while process.poll() is None and not reached():
                    time.sleep(0.001)
                alive = process.poll() is None
            finally:
                process.kill()
        time.sleep(2 * LATENCY)  # what was under way arrives
        self.ends.append(self.accepted())
        if alive:
            self.killed.append(next(iter(self.leases() - before), "between").partition(":")[0])
        return alive

    def accepted(self) -> int:
        """Calls; asked often, so only what is new is read."""
        with self.served.log.open("rb") as log:
            log.seek(self.read)
            new = log.read()
        self.read += len(new)
        self.lines += new.count(b"\n")
        return self.lines

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        try:
            with closing(sqlite3.connect(f"file:{self.folder}/state.db?mode=ro", uri=True)) as db:
                return db.execute(sql).fetchall()
        except sqlite3.OperationalError:  # not made yet
            return []

    def leases(self) -> set[str]:
        """``capture:<audience>:<epoch>`` of each lease that was not given back."""
        held = self.rows("SELECT name, epoch FROM lease WHERE expires_at > 0")
        return {f"{name}:{epoch}" for name, epoch in held}

    def in_delivery(self, draw: random.Random) -> Callable[[], bool]:
        wanted = self.accepted() + draw.randint(1, 1400)
        return lambda: self.accepted() >= wanted

    def in_capture(self, _draw: random.Random) -> Callable[[], bool]:
        return self.grown("SELECT epoch FROM lease WHERE name = 'capture:vip'")

    def in_staging(self, _draw: random.Random) -> Callable[[], bool]:
        """The snapshot has its row; its chunks, and that it is seen, are still to come."""
        return self.grown("SELECT count(*) FROM snapshot")

    def grown(self, sql: str) -> Callable[[], bool]:
        before = self.rows(sql)
        return lambda: (self.rows(sql) or before) > before


def churned(draw: random.Random, members: set[str]) -> set[str]:
    """About a quarter leaves, as many come, some of them again."""
    everyone = [f"u{number:05}" for number in range(4500)]
    stayed = set(draw.sample(sorted(members), len(members) * 3 // 4))
    return stayed | set(draw.sample(everyone, 1000))


@pytest.mark.parametrize("each", [["identify"], ["identify", "track"]], ids=" and ".join)
def test_killed_anywhere_it_goes_on_to_the_state_of_an_undisturbed_run(
    tmp_path: Path, each: list[str]
) -> None:
    draw = random.Random(20261007)
    options = {"fail": 0.05, "times": FAULTS, "seed": 7, "hang": 0.3, "latency": LATENCY}
    with serve(log=tmp_path / "calls.log", **options) as served:
        shop = Shop(folder=tmp_path, served=served, each=each)
        members = {f"u{number:05}" for number in range(3000)}
        shop.members(members)
        for number in range(2 * KILLS):
            where = {0: shop.in_capture, 4: shop.in_staging}.get(number % 8, shop.in_delivery)
            shop.kill(where(draw))
            check_books(shop)
            if len(shop.killed) == KILLS:
                break
            if number % 2:
                members = churned(draw, members)
                shop.members(members)
        runs = [shop.finish() for _ in range(3)]
        assert runs[-1] == [], "after two runs nothing is left to tell"
        check_what_was_told(shop, members)
    check_store(shop)
    assert len(shop.killed) == KILLS
    assert shop.killed.count("deliver") >= 3, shop.killed
    assert shop.killed.count("capture") >= 1, shop.killed


def check_books(shop: Shop) -> None:
    """At a kill: what the server has and the books have not was in flight; never the reverse."""
    on_the_wire = {call["messageId"] for call in shop.served.calls()}
    books = shop.rows("SELECT total, accepted, rejected + skipped FROM span")
    assert all(accepted <= total and not refused for total, accepted, refused in books)
    in_flight = len(on_the_wire) - len(shop.each) * sum(accepted for _, accepted, _ in books)
    assert 0 <= in_flight <= CONCURRENCY * BATCH


def check_what_was_told(shop: Shop, members: set[str]) -> None:
    calls = shop.served.calls()
    assert not shop.served.refused()
    identified = [call for call in calls if call["body"]["type"] == "identify"]
    last = {call["userId"]: call["body"]["traits"]["vip"] for call in identified}
    assert last == {user_id: user_id in members for user_id in last}
    assert members <= last.keys(), "somebody was never told"
    bodies = {(call["messageId"], call["hash"]) for call in calls}
    ids = {message_id for message_id, _ in bodies}
    assert len(bodies) == len(ids), "one id for two bodies"
    told = sum(accepted for (accepted,) in shop.rows("SELECT accepted FROM span"))
    assert len(ids) == len(shop.each) * told, "books and wire"
    tracked = [call for call in calls if call["body"]["type"] == "track"]
    assert [call["userId"] for call in tracked] == [
        call["userId"] for call in identified if "track" in shop.each
    ], "one member's calls were parted"
    check_repeats(shop, [call["messageId"] for call in calls])


def check_repeats(shop: Shop, ids: list[str]) -> None:
    """What is told again was in flight at a kill, or in a request that failed ambiguously."""
    runs = [ids[start:end] for start, end in pairwise([0, *shop.ends])]
    for number, run in enumerate(runs):
        again = set(run).intersection(ids[shop.ends[number] :])
        assert len(again) <= CONCURRENCY * BATCH, f"run {number}"
    assert sum(len(run) - len(set(run)) for run in runs) <= FAULTS * BATCH


def check_store(shop: Shop) -> None:
    spans = shop.rows("SELECT state, total, accepted, rejected, skipped FROM span ORDER BY number")
    assert len(spans) >= 2
    for state, total, accepted, rejected, skipped in spans:
        assert (state, rejected, skipped) == ("completed", 0, 0)
        assert total == accepted
    newest = shop.rows("SELECT max(seq) FROM snapshot WHERE state = 'current'")
    assert shop.rows("SELECT told_seq FROM told") == newest
    assert shop.rows("SELECT count(*) FROM snapshot WHERE state = 'staged'") == [(0,)]
    unfinished = "SELECT count(*) FROM run WHERE ended_at IS NULL"
    assert shop.rows(unfinished) == [(0,)]
    assert shop.rows("PRAGMA integrity_check") == [("ok",)]
