"""A machine as ``deploy/`` means it, below a folder: every path in its files begins there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pytest

from tests.acceptance.program import LONGEST, TOP, Done, free_port, whole_lines
from tests.fakes.tracking_api import Served

DEPLOY = TOP / "deploy"
PLACES = re.compile(
    r"(?<![\w.-])(/etc/audience-sync|/opt/audience-sync|/var/lib/audience-sync|/run/secrets"
    r"|/var/tmp|/src\b|/wheels)"
)
"""Where the files in ``deploy/`` put something, or look for it."""

LONGEST_STOP = 25.0
"""Seconds (P15)."""

WRITE_KEY = "write-key-7Hq2w"
MEMBERS = 40
PORT = "8340"
"""Of the status server, in every configuration; each test has another one."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """``root`` instead of ``/``."""

    root: Path
    port: int = field(default_factory=free_port)
    runs_checkout: bool = True
    """Or what was installed into it."""

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def rooted(self, text: str) -> str:
        """``text`` as written, but for the folder in which all its paths begin."""
        return PLACES.sub(lambda match: f"{self.root}{match[0]}", text)

    def configure(self, written: str, endpoint: str, secrets: Mapping[str, str]) -> None:
        """The configuration as written, but for our Segment and a port that is free."""
        assert 'type = "segment"\n' in written
        text = self.rooted(written).replace(PORT, str(self.port))
        text = text.replace('type = "segment"\n', f'type = "segment"\nendpoint = "{endpoint}"\n')
        self.put("/etc/audience-sync/config.toml", text, mode=0o644)
        for name, secret in secrets.items():
            self.put(name, secret, mode=0o600)

    def put(self, path: str, text: str, *, mode: int) -> None:
        place = self.at(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)

    def install(self) -> None:
        """This checkout as ``/opt/audience-sync``, and the folders that are made for it."""
        script = f'#!/bin/sh\nexec "{sys.executable}" -m audience_sync "$@"\n'
        self.put("/opt/audience-sync/bin/audience-sync", script, mode=0o755)
        for folder in ("/var/lib/audience-sync", "/var/tmp"):
            self.at(folder).mkdir(parents=True, mode=0o700)

    def warehouse(self) -> str:
        """The URL of a database with orders of ``MEMBERS`` users."""
        path = self.root / "shop.duckdb"
        with duckdb.connect(str(path)) as connection:
            connection.execute(
                "CREATE OR REPLACE TABLE orders AS SELECT 'u' || n AS user_id, "
                "n || '@private.example' AS email, now() - INTERVAL 1 DAY AS completed_at "
                f"FROM range({MEMBERS}) AS numbers (n)"
            )
        return f"duckdb:///{path}"

    def run(self, command: Sequence[str], variables: Mapping[str, str], folder: str) -> Done:
        done = subprocess.run(
            command,
            env=self.environment(variables),
            cwd=self.at(folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST,
        )
        return Done(code=done.returncode, out=done.stdout, err=done.stderr)

    def start(
        self, command: Sequence[str], variables: Mapping[str, str], folder: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            env=self.environment(variables),
            cwd=self.at(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Of our own only what finds the checkout: a service has nothing of a shell."""
        given = {name: self.rooted(value) for name, value in variables.items()}
        checkout = {"PYTHONPATH": str(TOP)} if self.runs_checkout else {}
        return {"PATH": "/usr/bin:/bin", "HOME": str(self.root)} | checkout | given


def read(name: str) -> str:
    return (DEPLOY / name).read_text()


def tool(name: str, package: str) -> str:
    """The path of a tool that `make test` installs where it can.

    Elsewhere its absence is a failure: a test that nobody runs shows nothing.
    """
    found = shutil.which(name)
    if found is None and sys.platform == "linux":
        pytest.fail(f"{name} is missing: apt-get install {package}")
    if found is None:
        pytest.skip(f"{name} is of Linux")
    return found


def needs_namespaces() -> None:
    """Only root makes such: CI is root, a person at the keyboard need not be."""
    trial = ["unshare", "--mount", "--pid", "--fork", "true"]
    if (
        sys.platform != "linux"
        or subprocess.run(trial, capture_output=True, check=False).returncode
    ):
        if os.environ.get("CI"):
            pytest.fail("CI must be root, with namespaces of its own, to run this")
        pytest.skip("only root makes namespaces of its own")


def seconds(text: str) -> float:
    """``"2h"``, ``"5min"``, ``"9m"``, ``"40"`` as systemd and the program write durations."""
    units = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}
    match = re.fullmatch(r"(\d+)([a-z]*)", text)
    assert match is not None, text
    return int(match[1]) * units[match[2]]


def told(served: Served) -> list[str]:
    """Who was told of, as often as that was done."""
    return sorted(json.loads(line)["userId"] for line in whole_lines(served.log))


def everybody() -> list[str]:
    return sorted(f"u{n}" for n in range(MEMBERS))
