"""The daemon as systemd runs it: a real process, real signals, its log as it writes it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.acceptance.program import Program, command, wait_until

ENDS_WITHIN = 25.0
"""Seconds from a signal to the end."""


@dataclass
class Daemon:
    """One process; its log goes into a file of its own."""

    process: subprocess.Popen[str]
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """Every whole line so far, each of which must be JSON."""
        whole = self.log.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def said(self, event: str, **about: Any) -> list[dict[str, Any]]:
        return [
            line
            for line in self.lines()
            if line["event"].startswith(event) and about.items() <= line.items()
        ]

    def wait_for(self, event: str, count: int = 1, **about: Any) -> dict[str, Any]:
        """The line that says it for the ``count``-th time."""
        wait_until(lambda: self.ended or len(self.said(event, **about)) >= count)
        found = self.said(event, **about)
        assert len(found) >= count, (event, about, self.log.read_text())
        return found[count - 1]

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; its exit code."""
        self.send(number)
        return self.process.wait(ENDS_WITHIN)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def running(program: Program, name: str = "daemon", **variables: str) -> Iterator[Daemon]:
    """A daemon in the program's folder; killed when the test ends."""
    log = program.folder / f"{name}.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [*command(), "run"],
            cwd=program.folder,
            env=program.environment() | variables,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            text=True,
        )
    daemon = Daemon(process=process, log=log)
    try:
        yield daemon
    except BaseException:
        print(log.read_text())  # which pytest shows with the failure
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
        daemon.kill()
