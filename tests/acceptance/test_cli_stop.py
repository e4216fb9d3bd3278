"""A run can be stopped at any time and goes on where it was; --now reaches nobody by mistake."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from audience_sync.cli.signals import GRACE
from tests.acceptance.program import (
    LONGEST,
    NEW_STORE,
    SNAPSHOTS,
    SPANS,
    Program,
    people,
    segment,
    wait_until,
)
from tests.fakes.tracking_api import Served, serve

KEY = "Wk7acceptance0001"
MEMBERS = range(80)
ONE_BY_ONE = "batch = 1\nconcurrency = 4"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Takes 0.15 s for a request: 3 s for everybody, one by one and four at a time."""
    log = tmp_path_factory.mktemp("server") / "log"
    with serve(log=log, write_key=KEY, latency=0.15) as served:
        yield served


@pytest.fixture
def program(tmp_path: Path, server: Served) -> Program:
    server.log.write_bytes(b"")
    made = Program(folder=tmp_path, variables={"WRITE_KEY": KEY})
    made.configure({"vip": ["slow"]}, destinations=segment("slow", server.endpoint, ONE_BY_ONE))
    made.members("vip", MEMBERS)
    return made


def told_so_far(server: Served) -> list[str]:
    return [call["userId"] for call in server.calls()]


def finish(program: Program, server: Served) -> None:
    """The next run tells exactly those whom the first has not."""
    before = told_so_far(server)
    assert len(before) < len(MEMBERS)
    assert len(before) == len(set(before))
    done = program.run("sync")
    assert done.code == 0, done
    after = told_so_far(server)
    assert after[: len(before)] == before
    assert len(after) == len(MEMBERS), "nobody twice"
    assert set(after) == people(MEMBERS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_cleanly(number: signal.Signals, program: Program, server: Served) -> None:
    process = program.start("sync")
    wait_until(lambda: len(server.calls()) >= 4)
    lasting = takers(process, number) & takers(process, number)  # one that is ending has no mask
    assert lasting <= {process.pid}, "another thread would die of it, and we all"
    process.send_signal(number)
    sent = time.monotonic()
    out, err = process.communicate(timeout=LONGEST)
    assert time.monotonic() - sent < GRACE
    assert (process.returncode, err) == (0, NEW_STORE)
    assert " of 80 wait" in out
    assert program.stored(SPANS) == [("open", len(server.calls()), len(MEMBERS))]
    finish(program, server)


def takers(process: subprocess.Popen[str], number: signal.Signals) -> set[int]:
    """The threads to which the system may give a signal (Linux)."""
    found = set()
    for task in Path(f"/proc/{process.pid}/task").glob("*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            fields = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
            if not int(fields["SigBlk"], 16) >> (number - 1) & 1:
                found.add(int(task.name))
    return found


def waiting(process: subprocess.Popen[str], number: signal.Signals) -> bool:
    """Whether it was given the signal and has not taken it; a second would then be none."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return bool(int(fields["ShdPnd"], 16) >> (number - 1) & 1)


def test_a_second_signal_exits_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        program = Program(folder=tmp_path, variables={"WRITE_KEY": KEY})
        program.configure({"vip": ["silent"]}, destinations=segment("silent", endpoint))
        program.members("vip", MEMBERS)
        with program.start("sync") as process:
            silent.settimeout(LONGEST)
            connection, _ = silent.accept()
            assert connection.recv(1), "a request is in flight"
            process.terminate()
            wait_until(lambda: not waiting(process, signal.SIGTERM))
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)  # what is in flight is waited for
            process.terminate()
            sent = time.monotonic()
            _, err = process.communicate(timeout=LONGEST)
            assert time.monotonic() - sent < GRACE
            connection.close()
    assert (process.returncode, err) == (128 + signal.SIGTERM, NEW_STORE)
    assert program.stored(SPANS) == [("open", 0, len(MEMBERS))]


def test_max_duration_stops_cleanly(program: Program, server: Served) -> None:
    started = time.monotonic()
    done = program.run("sync", "--max-duration", "1s")
    assert time.monotonic() - started < 15
    assert (done.code, done.err) == (0, NEW_STORE)
    finish(program, server)


def test_now_needs_a_yes_where_it_reaches_people(tmp_path: Path) -> None:
    program = Program(folder=tmp_path, variables={"WRITE_KEY": KEY})
    program.configure({"vip": ["real"]}, destinations=segment("real", "https://segment.invalid/v1"))
    program.members("vip", range(3))
    done = program.run("sync", "--now", "2026-03-01")
    assert (done.code, done.out) == (2, "")
    assert "--now would tell real about a time of your choice" in done.err
    assert "say it with --yes" in done.err
    declined = program.on_terminal("sync", "--now", "2026-03-01", typed="n\n")
    assert (declined.code, declined.out) == (1, "")
    assert program.stored(SNAPSHOTS) == [], "it was asked before the capture"
