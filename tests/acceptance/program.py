"""The program as a person or cron runs it: real processes, in a folder of their own."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

TOP = Path(__file__).parents[2]
LONGEST = 90.0
"""Seconds that any one run may take."""

STRANGE = ("AUDIENCE_SYNC", "COLUMNS", "FORCE_COLOR", "GITHUB_ACTIONS", "NO_COLOR", "PY_COLORS")
"""What of this process's environment changes how the program writes."""

SNAPSHOTS = """
SELECT audience.key, max(seq), state FROM snapshot JOIN audience ON audience.id = audience_id
WHERE state IN ('current', 'held') GROUP BY audience.key, state ORDER BY 1, 3
"""
"""The newest of each state of each audience."""

SPANS = "SELECT state, accepted, total FROM span ORDER BY id"

NEW_STORE = "new store: state.db knows of nobody who was told, so every member is told\n"
"""What a first run says to standard error."""

MOVED_CLOCK = """
import os, time_machine
time_machine.travel(os.environ["MOVED_TO"], tick=True).start()
"""

CALLS = '[destinations.calls]\ntype = "ndjson"\npath = "calls.ndjson"\n'


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """A run that has ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output, which must be one JSON document in one line and nothing else."""
        assert self.out.count("\n") == 1, self
        return json.loads(self.out)

    def lines(self) -> list[str]:
        return self.out.splitlines()


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A folder with ``config.toml``, CSV files and whatever the program makes there."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, script: str | None = None) -> Done:
        """``script``: Python that is run in place of the program, with its arguments."""
        done = subprocess.run(
            [*(command() if script is None else [sys.executable, "-c", script]), *arguments],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=LONGEST,
        )
        return Done(code=done.returncode, out=done.stdout, err=done.stderr)

    def by_clock(self, clock: datetime) -> Program:
        """The same, whose clock starts at ``clock`` in each run.

        The leases, whose times are those of the database and of the boot, go by the real one.
        """
        hook = self.folder / "clock"  # Python runs a ``sitecustomize`` before anything else
        hook.mkdir(exist_ok=True)
        (hook / "sitecustomize.py").write_text(MOVED_CLOCK)
        moved = {"PYTHONPATH": f"{hook}:{TOP}", "MOVED_TO": clock.isoformat()}
        return replace(self, variables=self.variables | moved)

    def start(self, *arguments: str, **how: Any) -> subprocess.Popen[str]:
        streams: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        return subprocess.Popen(
            [*command(), *arguments],
            cwd=self.folder,
            env=self.environment(),
            encoding="utf-8",
            **(streams | how),
        )

    def on_terminal(self, *arguments: str, typed: str = "") -> Done:
        """Standard input and error are a terminal; ``err`` is all that was shown there."""
        ours, theirs = pty.openpty()
        process = self.start(*arguments, stdin=theirs, stderr=theirs)
        os.close(theirs)
        os.write(ours, typed.encode())
        shown = b""
        with contextlib.suppress(OSError):  # how Linux says that nobody has it open any more
            while piece := os.read(ours, 65_536):
                shown += piece
        os.close(ours)
        out, _ = process.communicate(timeout=LONGEST)
        return Done(code=process.returncode, out=out, err=shown.decode())

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(STRANGE)}
        return {**kept, "PYTHONPATH": str(TOP), "TERM": "xterm", **self.variables}

    def configure(
        self,
        audiences: Mapping[str, Iterable[str]] | None = None,
        *,
        destinations: str = CALLS,
        more: str = "",
    ) -> None:
        """Audiences, each read from the CSV file of its name, and where each is told."""
        parts = [
            '[store]\nurl = "sqlite:///state.db"\n[schedule]\nevery = "1h"\n',
            '[sources.files]\ntype = "files"\nroot = "."\n',
            destinations,
            more,
        ]
        for key, places in (audiences or {"vip": ["calls"]}).items():
            parts.append(
                f'[[audiences]]\nname = "{key}"\nsource = "files"\n'
                f"query = \"SELECT * FROM '{key}.csv'\"\n"
                f"destinations = {json.dumps(list(places))}\n"
            )
        (self.folder / "config.toml").write_text("\n".join(parts))

    def members(self, audience: str, numbers: Iterable[int]) -> None:
        """Write the audience's file: ``person-0007`` with the e-mail ``p7@private.example``."""
        rows = "".join(f"person-{n:04},p{n}@private.example\n" for n in numbers)
        # At once: a daemon may be reading.
        (self.folder / "next.csv").write_text("user_id,email\n" + rows)
        (self.folder / "next.csv").rename(self.folder / f"{audience}.csv")

    def calls(self, name: str = "calls.ndjson") -> list[dict[str, Any]]:
        path = self.folder / name
        return [json.loads(line) for line in whole_lines(path)] if path.exists() else []

    def stored(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the store; a look at it costs no run of the program."""
        with contextlib.closing(sqlite3.connect(self.folder / "state.db")) as connection:
            return connection.execute(query).fetchall()

    def files(self) -> dict[str, bytes]:
        """Every file, with its content."""
        paths = [path for path in self.folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}

    def put_back(self, files: Mapping[str, bytes]) -> None:
        """Make the folder what it was. A copy would be another place, to be told everything."""
        shutil.rmtree(self.folder)
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def command() -> list[str]:
    return [sys.executable, "-m", "audience_sync"]


def segment(name: str, endpoint: str, more: str = "") -> str:
    """A destination whose key comes from the environment variable ``WRITE_KEY``."""
    return (
        f'[destinations.{name}]\ntype = "segment"\nwrite_key = "${{WRITE_KEY}}"\n'
        f'endpoint = "{endpoint}"\n{more}\n'
    )


def whole_lines(path: Path) -> list[str]:
    """Of a file that somebody is writing: what one call writes may be seen in part."""
    return path.read_text().rpartition("\n")[0].splitlines()


def told(calls: Iterable[Mapping[str, Any]], key: str = "vip") -> dict[str, Any]:
    """What was said last of each member of an audience."""
    return {call["userId"]: call["traits"][key] for call in calls if key in call["traits"]}


def people(numbers: Iterable[int]) -> set[str]:
    return {f"person-{n:04}" for n in numbers}


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def free_port() -> int:
    """For somebody who takes it a moment later: none that the system gives to whoever connects."""
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def full_pipe() -> tuple[int, int]:
    """Its ends; whoever writes into it waits until somebody reads."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"\n" * 4096)
    os.set_blocking(writing, True)
    return reading, writing
