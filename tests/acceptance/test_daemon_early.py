"""Signals in the first moments of ``audience-sync run``, from the first line of ours on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.acceptance.daemon import ENDS_WITHIN, Daemon, running
from tests.acceptance.program import Program, wait_until

DELAYS = [0.0, 0.1, 0.3, 0.7, 1.5]
"""Seconds. It is read, wired and at work after about one."""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    made = Program(folder=tmp_path)
    made.configure()
    made.members("vip", range(3))
    return made


HELD = """
import importlib.abc, sys
from audience_sync.__main__ import main

class Held(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "audience_sync.cli.main":
            print("loading", flush=True)
            sys.stdin.readline()

sys.meta_path.insert(0, Held())
main()
"""


def has_begun(process: subprocess.Popen[str]) -> bool:
    """Whether Python is up, and our first line has been run."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (blocked,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigBlk"))
    return bool(int(blocked, 16) & 1 << signal.SIGTERM - 1)


def send_after(daemon: Daemon, seconds: float, number: int) -> None:
    wait_until(lambda: has_begun(daemon.process))
    time.sleep(seconds)
    daemon.send(number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("seconds", DELAYS)
def test_a_stop_ends_it_in_order(program: Program, seconds: float, number: int) -> None:
    with running(program) as daemon:
        send_after(daemon, seconds, number)
        assert daemon.process.wait(ENDS_WITHIN) == 0
    assert "Traceback" not in daemon.log.read_text()


@pytest.mark.parametrize("seconds", DELAYS)
def test_sighup_is_heard_once_it_is_at_work(program: Program, seconds: float) -> None:
    with running(program) as daemon:
        send_after(daemon, seconds, signal.SIGHUP)
        daemon.wait_for("reloaded")
        assert daemon.stop() == 0


def test_a_wrong_configuration_is_told_all_the_same(program: Program) -> None:
    program.configure(more="[guard]\nflor = 3\n")
    with running(program) as daemon:
        send_after(daemon, 0, signal.SIGTERM)
        assert daemon.process.wait(ENDS_WITHIN) == 78
    (problem,) = daemon.wait_for("ended")["problems"]
    assert 'did you mean "floor"' in problem


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)]
)
@pytest.mark.parametrize("command", [["status"], ["history", "run"]])
def test_other_commands_end_as_ever(
    program: Program, command: list[str], number: int, code: int
) -> None:
    """The signal comes while the program is being loaded."""
    with subprocess.Popen(
        [sys.executable, "-c", HELD, *command],
        cwd=program.folder,
        env=program.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(number)
        out, err = process.communicate("go on\n")
    assert (process.returncode, out, err.strip()) == (code, "", "")
