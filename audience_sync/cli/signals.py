"""Stop cleanly: on SIGTERM and SIGINT no new work, at the second one at once (P15).

No signal handler runs: one that sets an event can deadlock the main thread. Instead the signals
are blocked in every thread, and the main thread asks for them.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import NoReturn

from audience_sync.cli.output import warn

STOPS = (signal.SIGTERM, signal.SIGINT)
OF_DAEMON = (*STOPS, signal.SIGHUP)
EXIT_UNFINISHED = 0
"""Nothing is lost and the next run goes on, so nobody need be called."""
GRACE = 20.0
"""Seconds to finish what is in flight. The store survives a kill at any point anyway."""
LAST_WORDS = 1.0
"""Seconds for the line that says what was cut off."""
LOOK_EVERY = 0.05
"""Seconds until a signal, or the end of the work, is noticed."""
SHOW_CURSOR = b"\x1b[?25h"


@contextmanager
def withheld(signals: Collection[signal.Signals] = STOPS) -> Iterator[None]:
    """``signals`` wait until the end; threads started meanwhile never take one.

    The system may hand a signal to any thread that does not block it, and SIGTERM then ends the
    whole process, whatever its main thread does.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def listening() -> Iterator[None]:
    """For the daemon: its signals wait to be heard. One that comes when it has ended means nothing
    more, and may not take its exit code or its last words."""
    signal.pthread_sigmask(signal.SIG_BLOCK, OF_DAEMON)
    try:
        yield
    finally:
        while heard(0.0, OF_DAEMON) is not None:
            pass
        released()


def released() -> None:
    """Signals act as ever, also those that waited until here (see ``__main__``)."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_DAEMON)


def stoppable(
    work: Callable[[], None], stop: threading.Event, *, seconds: float | None = None
) -> None:
    """Run ``work`` in a thread while this one, which must be the main one, waits for signals.

    Args:
        stop: set by a signal, or after ``seconds``.

    Raises:
        BaseException: whatever ``work`` raised.
    """
    failure: list[BaseException] = []
    worker = threading.Thread(target=_keep, args=(work, failure), name="work", daemon=True)
    with withheld():
        worker.start()
        _wait(worker, stop, seconds)
    if failure:
        raise failure[0]


def _keep(work: Callable[[], None], failure: list[BaseException]) -> None:
    try:
        work()
    except BaseException as error:
        failure.append(error)


def _wait(worker: threading.Thread, stop: threading.Event, seconds: float | None) -> None:
    over = None if seconds is None else time.monotonic() + seconds
    until: float | None = None
    while worker.is_alive():
        caught = heard(LOOK_EVERY)
        if caught is not None and until is not None:
            leave(128 + caught)
        if caught is not None:
            until = time.monotonic() + GRACE
        if caught is not None or (over is not None and time.monotonic() > over):
            stop.set()
        if until is not None and time.monotonic() > until:
            _last_words(f"still at work after {GRACE:.0f} s: ended; the next run goes on")
            leave(EXIT_UNFINISHED)


def _last_words(text: str) -> None:
    """Not for long: perhaps nobody reads them, and whoever writes then waits."""
    said = threading.Thread(target=warn, args=(text,), daemon=True)
    said.start()
    said.join(LAST_WORDS)


def heard(seconds: float, signals: Collection[signal.Signals] = STOPS) -> int | None:
    """The number of a withheld signal that came; ``None`` after ``seconds`` without one."""
    # Not sigtimedwait: in a process that was stopped for longer (SIGSTOP, a frozen container) it
    # gives a signal that nobody sent (CPython 3.11). macOS has none.
    over = time.monotonic() + seconds
    while True:
        pending = [s for s in signal.sigpending() if s in signals]
        if pending:
            return int(signal.sigwait(pending))
        left = over - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(left, LOOK_EVERY))


def leave(code: int) -> NoReturn:
    """End the process at once, whatever its threads are doing."""
    if os.isatty(2):
        os.write(2, SHOW_CURSOR)  # the progress bars have hidden it
    os._exit(code)
