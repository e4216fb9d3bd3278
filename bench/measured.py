"""Run a part of the benchmark in a process of its own, so that its peak memory is its own.

The process that starts them must stay small: on Linux its peak is where theirs begins.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any


def run(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """What ``python -m module`` reports as the last line of its output."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], check=False, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit(f"{module} failed")  # and has said why
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(found: dict[str, Any]) -> None:
    """To be called at the end of such a process. ``peak``: bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    sys.stdout.write(json.dumps(found | {"peak": peak * unit}) + "\n")


class Stopwatch:
    """Seconds of each lap since the last."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = perf_counter()

    def lap(self, name: str) -> None:
        now = perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._since
        self._since = now


@contextmanager
def timed(found: dict[str, float], name: str) -> Iterator[None]:
    start = perf_counter()
    yield
    found[name] = perf_counter() - start
