"""Daemons beside others: orders of people, cron, other nodes, kills, and lanes side by side."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from tests.acceptance.daemon import Daemon, running
from tests.acceptance.program import CALLS, Program, people, segment, told, wait_until
from tests.fakes.tracking_api import Served, serve

LATENCY = 0.05
CONCURRENCY, BATCH = 4, 20
IN_FLIGHT = CONCURRENCY * BATCH
PLACE = f"concurrency = {CONCURRENCY}\nbatch = {BATCH}\n"
EVERYBODY = 2_000
MANY = 1_200


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(folder=tmp_path, variables={"WRITE_KEY": "test"})


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(log=tmp_path / "accepted.log", latency=LATENCY) as served:
        yield served


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    """The address of an empty store."""
    if request.param == "sqlite":
        return "sqlite:///state.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


def edit(program: Program, old: str, new: str) -> None:
    path = program.folder / "config.toml"
    written = path.read_text()
    assert old in written
    path.write_text(written.replace(old, new))


def in_store(program: Program, store: str) -> None:
    edit(program, "sqlite:///state.db", store)


def often(program: Program) -> None:
    edit(program, 'every = "1h"', 'every = "1s"')


def stored(program: Program, store: str, statement: str) -> list[tuple[Any, ...]]:
    """Rows of the store, or a change of it by somebody else."""
    if store.startswith("sqlite"):
        store = f"sqlite:///{program.folder / 'state.db'}"
        impatient: dict[str, Any] = {"timeout": 0.1}
    else:
        impatient = {"options": "-c lock_timeout=200"}
    engine = create_engine(make_url(store), connect_args=impatient)
    try:
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []
    finally:
        engine.dispose()


def duplicates(served: Served) -> int:
    """Calls that came again; each with the body it had."""
    calls = served.calls()
    ids = {call["messageId"] for call in calls}
    assert len({(call["messageId"], call["hash"]) for call in calls}) == len(ids)
    return len(calls) - len(ids)


def bodies(served: Served) -> list[dict[str, Any]]:
    return [call["body"] for call in served.calls()]


# Lanes side by side


def test_changes_are_told_while_an_initial_sync_goes_on(
    program: Program, served: Served, store: str
) -> None:
    """P9: captures, too. At 50 calls a second the initial sync would take some 40 s."""
    program.members("vip", range(20))
    program.members("winback", range(EVERYBODY))
    place = segment("cdp", served.endpoint, PLACE + 'rate = "50/s"\n')
    program.configure({"vip": ["cdp"]}, destinations=place)
    in_store(program, store)
    often(program)
    with running(program) as daemon:
        wait_until(lambda: set(told(bodies(served))) == people(range(20)))
        program.configure({"vip": ["cdp"], "winback": ["cdp"]}, destinations=place)
        in_store(program, store)
        often(program)
        daemon.send(signal.SIGHUP)
        wait_until(lambda: len(told(bodies(served), "winback")) > 100)
        for number in range(20, 24):
            program.members("vip", range(number + 1))
            wait_until(lambda n=number: f"person-{n:04}" in told(bodies(served)))  # type: ignore[misc]
        assert len(told(bodies(served), "winback")) < EVERYBODY
        assert daemon.stop() == 0
    assert duplicates(served) == 0


def test_a_few_changes_are_told_while_many_of_their_lane_go_on(
    program: Program, served: Served, store: str
) -> None:
    """P9. At 50 calls a second the many take 24 s, in requests of 20 of which three wait."""
    program.members("vip", range(20))
    program.members("winback", range(20))
    audiences = {"vip": ["cdp"], "winback": ["cdp"]}
    place = segment("cdp", served.endpoint, PLACE + 'rate = "50/s"\n')
    program.configure(audiences, destinations=place, more="[guard]\nfloor = 10000\n")
    in_store(program, store)
    often(program)
    with running(program) as daemon:
        daemon.wait_for("delivered", 2, outcome="completed")
        program.members("winback", range(MANY))
        wait_until(lambda: len(told(bodies(served), "winback")) > 100)
        program.members("vip", range(3, 23))
        daemon.wait_for("delivered", audience="vip", lane="incremental", outcome="completed")
        at_that_time = len(told(bodies(served), "winback"))
        assert at_that_time < MANY
        assert not daemon.said("delivered", audience="winback", lane="incremental")
        wait_until(lambda: len(told(bodies(served), "winback")) > at_that_time + 100)
        daemon.wait_for("delivered", audience="winback", lane="incremental", outcome="completed")
        assert daemon.stop() == 0
    now = told(bodies(served))
    assert {user for user, inside in now.items() if inside} == people(range(3, 23))
    assert set(told(bodies(served), "winback")) == people(range(MANY))
    assert duplicates(served) == 0
    runs = "SELECT count(*) FROM run WHERE kind = 'delivery' AND lane = 'incremental'"
    assert stored(program, store, runs) == [(1,)]


# Orders


def test_orders_are_noticed_without_a_restart(program: Program) -> None:
    program.members("vip", range(30))
    program.configure()
    with running(program) as daemon:
        wait_until(lambda: len(program.calls()) == 30)
        assert program.run("pause", "vip", "--yes").code == 0
        assert program.run("resync", "vip", "--yes").code == 0
        time.sleep(6)  # a look of the daemon: what is paused is left alone
        assert len(program.calls()) == 30
        assert program.run("resume", "vip", "--yes").code == 0
        wait_until(lambda: len(program.calls()) == 60)
        assert program.run("retire", "vip", "--yes").code == 0
        wait_until(lambda: set(told(program.calls()).values()) == {False})
        assert daemon.stop() == 0
    assert len(program.calls()) == 90


def test_what_is_held_goes_when_it_is_approved(program: Program) -> None:
    program.members("vip", range(200))
    program.configure()
    edit(program, 'every = "1h"', 'every = "4s"')
    with running(program) as daemon:
        wait_until(lambda: len(program.calls()) == 200)
        program.members("vip", range(1))
        line = daemon.wait_for("capture held", audience="vip")
        assert line["exited"] == 199
        assert line["hint"] == f"audience-sync approve {line['plan']}"
        assert len(program.calls()) == 200
        assert program.run("approve", line["plan"], "--yes").code == 0
        wait_until(lambda: len(program.calls()) == 399)
        assert daemon.stop() == 0


# Cron beside a daemon


def test_a_one_shot_beside_a_daemon_does_what_is_free(program: Program, served: Served) -> None:
    program.members("vip", range(EVERYBODY))
    place = segment("cdp", served.endpoint, PLACE + 'rate = "60/s"\n')
    program.configure({"vip": ["cdp"]}, destinations=place)
    with running(program) as daemon:
        wait_until(lambda: len(served.calls()) > 100)
        program.members("own", range(5))
        program.configure({"vip": ["cdp"], "own": ["calls"]}, destinations=place + CALLS)
        done = program.run("sync", "--all", "--json")
        assert done.code == 0, done
        report = done.json()
        assert ("vip", "leased") in {(d["audience"], d["outcome"]) for d in report["deliveries"]}
        assert ("own", "completed") in {(d["audience"], d["outcome"]) for d in report["deliveries"]}
        assert daemon.stop() == 0
    assert len(served.calls()) < EVERYBODY
    assert duplicates(served) == 0


# Several nodes


@contextmanager
def two(program: Program) -> Iterator[tuple[Daemon, Daemon]]:
    with running(program, "one") as one, running(program, "other") as other:
        one.wait_for("started")
        other.wait_for("started")
        yield one, other


def test_two_daemons_share_a_store_and_tell_nothing_twice(
    program: Program, served: Served, store: str
) -> None:
    keys = [f"a{number}" for number in range(6)]
    for key in keys:
        program.members(key, range(100))
    program.configure(
        {key: ["cdp"] for key in keys}, destinations=segment("cdp", served.endpoint, PLACE)
    )
    in_store(program, store)
    often(program)
    with two(program) as (one, other):
        wait_until(lambda: len(served.calls()) == 600)
        for key in keys:
            program.members(key, range(10, 110))
        wait_until(lambda: len(served.calls()) == 720)
        assert one.stop() == 0
        assert other.stop() == 0
    assert duplicates(served) == 0
    overlapping = stored(
        program,
        store,
        "SELECT count(*) FROM run a JOIN run b ON a.id < b.id AND a.kind = 'capture'"
        " AND b.kind = 'capture' AND a.audience_id = b.audience_id"
        " AND a.started_at < b.ended_at AND b.started_at < a.ended_at",
    )
    assert overlapping == [(0,)]


def test_another_daemon_takes_over_at_once_from_one_that_was_killed(
    program: Program, served: Served, store: str
) -> None:
    """On the same host: the lease, of a minute, is not waited for."""
    program.members("vip", range(EVERYBODY))
    place = segment("cdp", served.endpoint, PLACE + 'rate = "400/s"\n')
    program.configure({"vip": ["cdp"]}, destinations=place)
    in_store(program, store)
    with two(program) as (one, other):
        wait_until(lambda: len(served.calls()) > 200)
        (at_work,) = _holders(program, store)
        holder, free = (one, other) if one.process.pid == at_work else (other, one)
        holder.kill()
        before = len(served.calls())
        assert before < EVERYBODY
        began = time.monotonic()
        wait_until(lambda n=before: len(served.calls()) > n + IN_FLIGHT)  # type: ignore[misc]
        assert time.monotonic() - began < 20  # the lease has forty seconds left, and more
        wait_until(lambda: set(told(bodies(served))) == people(range(EVERYBODY)))
        assert free.stop() == 0
    assert duplicates(served) <= IN_FLIGHT


def _holders(program: Program, store: str) -> set[int]:
    rows = stored(program, store, "SELECT holder FROM lease WHERE name LIKE 'deliver:%'")
    return {int(holder.split("|")[2]) for (holder,) in rows if holder}


def test_one_that_was_stopped_beyond_its_lease_commits_nothing(
    program: Program, served: Served, store: str
) -> None:
    """The lease is moved into the past instead of waiting for its minute."""
    program.members("vip", range(EVERYBODY))
    place = segment("cdp", served.endpoint, PLACE + 'rate = "400/s"\n')
    program.configure({"vip": ["cdp"]}, destinations=place)
    in_store(program, store)
    with running(program, "one") as one:
        wait_until(lambda: len(served.calls()) > 200)
        _stop_and_expire(one, program, store)
        with running(program, "other") as other:
            before = len(served.calls())
            wait_until(lambda: len(served.calls()) > before + IN_FLIGHT)
            one.send(signal.SIGCONT)
            wait_until(lambda: set(told(bodies(served))) == people(range(EVERYBODY)))
            assert one.stop() == 0
            assert other.stop() == 0
    # In flight when it was stopped, and what it began before it saw that the lease was lost.
    assert duplicates(served) <= 2 * IN_FLIGHT
    (books,) = stored(program, store, "SELECT total, accepted, state FROM span")
    assert books == (EVERYBODY, EVERYBODY, "completed")


def _stop_and_expire(daemon: Daemon, program: Program, store: str) -> None:
    """As if it had been stopped for a minute, on a host where nobody can see that it lives.

    Not in the middle of a transaction, which on SQLite keeps everybody out.
    """
    expire = "UPDATE lease SET expires_at = 0 WHERE name LIKE 'deliver:%' AND holder <> ''"
    while True:
        daemon.send(signal.SIGSTOP)
        time.sleep(3 * LATENCY)  # what is in flight arrives
        try:
            stored(program, store, expire)
        except OperationalError:
            daemon.send(signal.SIGCONT)
            time.sleep(0.05)  # or it may have done nothing when it is stopped again
        else:
            return


# Kills


def test_kills_also_during_recovery_need_no_hand(
    program: Program, served: Served, store: str
) -> None:
    """P8. Some kills fall into the start, before anything was recovered."""
    draw = random.Random(len(store))
    program.members("vip", range(EVERYBODY))
    place = segment("cdp", served.endpoint, PLACE + 'rate = "2000/s"\n')
    program.configure({"vip": ["cdp"]}, destinations=place)
    in_store(program, store)
    often(program)
    kills = 0
    while kills < 5:
        with running(program) as daemon:
            if kills in (0, 4):
                daemon.wait_for("started")
            time.sleep(draw.random() * 1.2)
            daemon.kill()
        kills += 1
    with running(program) as daemon:
        wait_until(lambda: set(told(bodies(served))) == people(range(EVERYBODY)))
        program.members("vip", range(10, EVERYBODY))
        wait_until(lambda: list(told(bodies(served)).values()).count(False) == 10)
        assert daemon.stop() == 0
    assert duplicates(served) <= kills * IN_FLIGHT
    assert stored(program, store, "SELECT count(*) FROM snapshot WHERE state = 'staged'") == [(0,)]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_store_whose_file_is_gone_tells_nobody(program: Program, replaced: bool) -> None:
    """It would be a store that no order reaches, beside a new one that tells everybody anew."""
    program.members("vip", range(30))
    program.configure()
    path = program.folder / "state.db"
    with running(program) as daemon:
        daemon.wait_for("delivered")
        path.rename(program.folder / "aside.db")
        if replaced:
            path.write_bytes(b"")
        daemon.wait_for("the store cannot be used")
        program.members("vip", range(1, 31))
        daemon.send(signal.SIGHUP)
        daemon.wait_for("not reloaded")
        assert path.exists() == replaced
        assert len(program.calls()) == 30
        (program.folder / "aside.db").rename(path)
        daemon.send(signal.SIGHUP)
        daemon.wait_for("reloaded")
        assert program.run("sync", "--all").code == 0
        wait_until(lambda: len(program.calls()) == 32)
        assert daemon.stop() == 0
