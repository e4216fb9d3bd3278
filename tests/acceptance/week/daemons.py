"""Daemons that are killed, stopped and started again, and what the store said meanwhile."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine, create_engine, select
from sqlalchemy.exc import SQLAlchemyError

from audience_sync.store import schema
from tests.acceptance.program import TOP

MARKED = TOP / "tests" / "fakes" / "from_address.py"
POLL = 0.1
"""Seconds between two looks into the store."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process of a daemon. ``address`` is where its connections come from: only its own."""

    daemon: str
    address: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    def started(self) -> bool:
        return self.started_at() is not None

    def started_at(self) -> float | None:
        """When it had started, by its own log (seconds since 1970)."""
        for line in self.log.read_text().splitlines():
            if '"started: this is the daemon' in line:
                return datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp()
        return None


@dataclass(kw_only=True)
class Fault:
    """Something that went wrong on purpose, from ``at`` to ``until`` (seconds since 1970).

    Args:
        kind: ``kill``, ``stop`` or ``down``.
        address: of the process; or the destination that is down.
        held: leases with their epochs that the process had then.
    """

    kind: str
    address: str
    at: float
    until: float
    held: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A state of a lease, when it was first seen."""

    at: float
    epoch: int
    pid: int
    is_held: bool


class Watcher:
    """Looks into the store again and again, in a thread."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = create_engine(url)
        self.leases: dict[str, list[Seen]] = {}
        self.due: dict[tuple[str, datetime], datetime] = {}
        """By audience and last capture, when the next one was due."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def held_by(self, pid: int) -> dict[str, int]:
        """What a process that does nothing any more has not given back, with the epochs."""
        rows = self._lease_rows()
        return {name: epoch for name, owner, epoch, expires in rows if owner == pid and expires}

    def _watch(self) -> None:
        while not self._stop.wait(POLL):
            try:
                self._look()
            except SQLAlchemyError:  # there is no store yet
                continue

    def _look(self) -> None:
        for name, pid, epoch, expires in self._lease_rows():
            states = self.leases.setdefault(name, [])
            if not states or states[-1].epoch != epoch:
                seen = Seen(at=time.time(), epoch=epoch, pid=pid, is_held=bool(expires))
                states.append(seen)
        table = schema.audience.c
        with self.engine.connect() as connection:
            query = select(table.key, table.last_captured_at, table.next_due)
            for key, last, due in connection.execute(query):
                if last is not None:
                    self.due[key, last] = due

    def _lease_rows(self) -> list[tuple[str, int, int, float]]:
        with self.engine.connect() as connection:
            rows = connection.execute(select(schema.lease)).all()
        return [
            (r.name, int((r.holder.split("|") + ["0"] * 3)[2] or 0), r.epoch, r.expires_at)
            for r in rows
        ]


class Crew:
    """The daemons of the week by name: ``a``, ``b``, …"""

    def __init__(
        self, names: str, folder: Path, variables: Mapping[str, str], watcher: Watcher
    ) -> None:
        self.processes: list[Process] = []
        self.faults: list[Fault] = []
        self.working: dict[str, Process] = {}
        self._folder = folder
        self._variables = variables
        self._watcher = watcher
        self._numbers = itertools.count(1)
        for name in names:
            self.start(name)

    def start(self, name: str) -> Process:
        number = next(self._numbers)
        address = f"127.0.{1 + number // 200}.{1 + number % 200}"
        log = self._folder / "logs" / f"{number:03}-{name}.log"
        with log.open("wb") as errors:
            popen = subprocess.Popen(
                [sys.executable, str(MARKED), address, "run"],
                cwd=self._folder,
                env={**os.environ, "PYTHONPATH": str(TOP), **self._variables},
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )
        process = Process(daemon=name, address=address, popen=popen, log=log)
        self.processes.append(process)
        self.working[name] = process
        return process

    def kill(self, *names: str) -> None:
        """SIGKILL to all of them, then new ones at once."""
        at = time.time()  # no later than any of them: another takes over at once
        for name in names:
            self.working[name].popen.kill()
        for name in names:
            process = self.working[name]
            process.popen.wait()
            held = self._watcher.held_by(process.pid)
            self.faults.append(
                Fault(kind="kill", address=process.address, at=at, until=at, held=held)
            )
        for name in names:
            self.start(name)

    def stop(self, name: str) -> Fault:
        process = self.working[name]
        process.popen.send_signal(signal.SIGSTOP)
        at, held = time.time(), self._watcher.held_by(process.pid)
        self.faults.append(Fault(kind="stop", address=process.address, at=at, until=at, held=held))
        return self.faults[-1]

    def go_on(self, name: str, fault: Fault) -> None:
        self.working[name].popen.send_signal(signal.SIGCONT)
        fault.until = time.time()

    def reload(self) -> None:
        for process in self.working.values():
            process.popen.send_signal(signal.SIGHUP)

    def at_work(self, on: str, seconds: float) -> str | None:
        """Who holds a lease that begins with ``on``; ``None``: nobody did within ``seconds``."""
        over = time.monotonic() + seconds
        while time.monotonic() < over:
            for name, process in self.working.items():
                if any(lease.startswith(on) for lease in self._watcher.held_by(process.pid)):
                    return name
            time.sleep(0.005)
        return None

    def end(self) -> dict[str, tuple[int, float]]:
        """SIGTERM to all: exit code, and the seconds that it took, by name."""
        began = time.monotonic()
        for process in self.working.values():
            process.popen.terminate()
        ended = {}
        for name, process in self.working.items():
            code = process.popen.wait(timeout=60)
            ended[name] = (code, time.monotonic() - began)
        return ended

    def kill_all(self) -> None:
        """However the test ended, nothing is left."""
        for process in self.processes:
            process.popen.kill()
            process.popen.wait()


def drawn_times(draw: random.Random, start: float, end: float, every: float) -> list[float]:
    times, now = [], start
    while (now := now + draw.expovariate(1 / every)) < end:
        times.append(now)
    return times
