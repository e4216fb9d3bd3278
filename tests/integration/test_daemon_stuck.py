"""A daemon of which a thread hangs: what its main thread tells whoever watches it."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog
from structlog.testing import capture_logs

from audience_sync import logs
from audience_sync.scheduler import succession
from audience_sync.scheduler.daemon import Daemon
from audience_sync.scheduler.notify import Notify
from audience_sync.scheduler.pulse import Pulse
from audience_sync.standing.counters import Counters
from tests.acceptance.program import full_pipe, wait_until


class Elapsed:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def elapsed() -> Elapsed:
    return Elapsed()


def test_a_line_that_nobody_reads_is_no_progress(
    monkeypatch: pytest.MonkeyPatch, elapsed: Elapsed
) -> None:
    pulse = Pulse(elapsed)
    reading, writing = full_pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb", buffering=0) as reader:
        monkeypatch.setattr(sys, "stderr", stream)
        logs.configure((), pulse)
        writes = threading.Thread(target=structlog.get_logger().warning, args=("waits",))
        writes.start()

        def is_silent() -> bool:
            elapsed.seconds += logs.READ_WITHIN + 1
            return pulse.silent() == [logs.LOG]

        wait_until(is_silent)
        while b"waits" not in reader.read(65_536):
            pass
        writes.join()
        assert pulse.silent() == []


class Idle:
    """Stands in for a generation that has nothing to do."""

    next_cycle = None

    def __init__(self, app: object, **_parts: object) -> None:
        self.app = app

    def start(self) -> None:
        pass

    stop = start

    def join(self, _seconds: float) -> bool:
        return True

    join_deliveries = join


def test_whoever_watches_is_told_of_a_thread_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elapsed: Elapsed
) -> None:
    loaded = SimpleNamespace(secret_files=[], config=SimpleNamespace(status=None))
    app = SimpleNamespace(audiences={}, destinations={}, is_new=False, close=lambda: None)
    parts: Any = SimpleNamespace(
        serve=lambda *_: None,
        build=lambda _: app,
        elapsed=elapsed,
        clock=None,
        counters=Counters(),
    )
    monkeypatch.setattr(succession, "Generation", Idle)
    pulse = Pulse(elapsed)
    pulse.beat("look", 10)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(0)

        def told() -> list[str]:
            messages = []
            try:
                while True:
                    messages.append(systemd.recv(4096).decode())
            except BlockingIOError:
                return messages

        steps: Iterator[int | None]

        def heard(_seconds: float) -> int | None:
            return next(steps)

        def in_steps() -> Iterator[int | None]:
            while daemon.app() is None:
                yield None
            yield None
            assert "WATCHDOG=1" in told()
            assert not daemon.stuck()
            elapsed.seconds += 11
            yield None
            assert daemon.stuck()
            wait_until(lambda: "stuck: who watches is told" in [log["event"] for log in logs])
            assert "WATCHDOG=1" not in told()
            pulse.beat("look", 10)
            yield None
            assert not daemon.stuck()
            assert "WATCHDOG=1" in told()
            yield signal.SIGTERM

        notify = Notify({"NOTIFY_SOCKET": str(tmp_path / "notify")}, os.getpid())
        daemon = Daemon(cast(Any, loaded), parts, heard=heard, notify=notify, pulse=pulse)
        steps = in_steps()
        with capture_logs() as logs:
            assert daemon.run() == 0
