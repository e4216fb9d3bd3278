"""Signals as the main thread hears them: each once, and none that nobody sent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from audience_sync.cli import run as run_module
from audience_sync.errors import ConfigError
from tests.acceptance.program import full_pipe

TOP = Path(__file__).parents[2]
LISTENER = """
from audience_sync.cli.signals import OF_DAEMON, heard, withheld
with withheld(OF_DAEMON):
    while True:
        print(heard(0.2, OF_DAEMON), flush=True)
"""

NEVER_READY = """
import threading
from audience_sync.cli import signals
signals.GRACE = 0.1
def work():
    print("at work", flush=True)
    threading.Event().wait()
signals.stoppable(work, threading.Event())
"""


@pytest.fixture
def listener() -> Iterator[subprocess.Popen[str]]:
    """A process that prints what it hears, ``None`` every 0.2 s without a signal."""
    command = [sys.executable, "-c", LISTENER]
    with subprocess.Popen(command, cwd=TOP, stdout=subprocess.PIPE, text=True) as process:
        assert said(process) == "None"
        yield process
        process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def next_heard(process: subprocess.Popen[str]) -> int:
    return int(next(word for word in iter(lambda: said(process), "") if word != "None"))


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_heard_once(listener: subprocess.Popen[str], sent: signal.Signals) -> None:
    listener.send_signal(sent)
    assert next_heard(listener) == sent
    assert said(listener) == said(listener) == "None"


def test_one_that_was_stopped_for_a_while_hears_nothing(listener: subprocess.Popen[str]) -> None:
    """Also Ctrl-Z and fg. ``signal.sigtimedwait`` gives garbage then, a 2 for example."""
    for _ in range(3):
        listener.send_signal(signal.SIGSTOP)
        threading.Event().wait(0.5)
        listener.send_signal(signal.SIGCONT)
        assert [said(listener) for _ in range(3)] == ["None"] * 3
    listener.send_signal(signal.SIGTERM)
    assert next_heard(listener) == signal.SIGTERM


def test_what_came_while_it_was_stopped_is_heard(listener: subprocess.Popen[str]) -> None:
    listener.send_signal(signal.SIGSTOP)
    listener.send_signal(signal.SIGTERM)
    listener.send_signal(signal.SIGCONT)
    assert next_heard(listener) == signal.SIGTERM


def test_words_that_nobody_reads_keep_nobody_from_ending() -> None:
    reading, writing = full_pipe()
    command = [sys.executable, "-c", NEVER_READY]
    with subprocess.Popen(command, cwd=TOP, stdout=subprocess.PIPE, stderr=writing) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"at work\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    os.close(writing)
    os.close(reading)


def test_signals_wait_while_the_configuration_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that came in vain does not take the exit code, or the words, of what went wrong."""
    withheld: list[set[signal.Signals]] = []

    def read(_files: object) -> NoReturn:
        withheld.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGHUP)
        raise ConfigError(["wrong"])

    monkeypatch.setattr(run_module, "_read", read)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert run_module.run.main(args=[], obj=[], standalone_mode=False) == ConfigError.exit_code
    assert withheld[0] - before == {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
