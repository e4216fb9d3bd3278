"""Stop cleanly: on SIGTERM and SIGINT no new work, at the second one at once (P15).

No signal handler runs: one that sets an event can deadlock the main thread. Instead the signals
are blocked in every thread, and the main thread asks for them.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from audience_sync.cli.output import warn

STOPS = (signal.SIGTERM, signal.SIGINT)
EXIT_UNFINISHED = 0
"""Nothing is lost and the next run goes on, so nobody need be called."""
GRACE = 20.0
"""Seconds to finish what is in flight. The store survives a kill at any point anyway."""
LOOK_EVERY = 0.05
"""Seconds until the end of the work is noticed."""
SHOW_CURSOR = b"\x1b[?25h"


@contextmanager
def withheld() -> Iterator[None]:
    """Signals wait until the end; threads started meanwhile never take one.

    The system may hand a signal to any thread that does not block it, and SIGTERM then ends the
    whole process, whatever its main thread does.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
        caught = _caught(worker)
        if caught is not None and until is not None:
            _leave(128 + caught)
        if caught is not None:
            until = time.monotonic() + GRACE
        if caught is not None or (over is not None and time.monotonic() > over):
            stop.set()
        if until is not None and time.monotonic() > until:
            warn(f"still at work after {GRACE:.0f} s: ended; the next run goes on")
            _leave(EXIT_UNFINISHED)


def _caught(worker: threading.Thread) -> int | None:
    """The number of a signal that came; ``None`` after ``LOOK_EVERY`` seconds without one."""
    if hasattr(signal, "sigtimedwait"):
        info = signal.sigtimedwait(STOPS, LOOK_EVERY)
        return None if info is None else info.si_signo
    worker.join(LOOK_EVERY)  # macOS
    pending = [s for s in signal.sigpending() if s in STOPS]
    return int(signal.sigwait(pending)) if pending else None


def _leave(code: int) -> NoReturn:
    if os.isatty(2):
        os.write(2, SHOW_CURSOR)  # the progress bars have hidden it
    os._exit(code)
