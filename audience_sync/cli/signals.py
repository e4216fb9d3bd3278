"""Stop cleanly: on SIGTERM and SIGINT no new work, at the second one at once (P15)."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

STOPS = (signal.SIGTERM, signal.SIGINT)
GRACE = 20.0
"""Seconds to finish what is in flight. The store survives a kill at any point anyway."""
LOOK_EVERY = 0.2


def stoppable(work: Callable[[], None], stop: threading.Event) -> None:
    """Run ``work`` in a thread while this one, which must be the main one, waits for signals.

    No signal handler runs: one that sets an event can deadlock the main thread.

    Raises:
        BaseException: whatever ``work`` raised.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    failure: list[BaseException] = []
    worker = threading.Thread(target=_keep, args=(work, failure), name="work", daemon=True)
    worker.start()
    try:
        _wait(worker, stop)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if failure:
        raise failure[0]


def _keep(work: Callable[[], None], failure: list[BaseException]) -> None:
    try:
        work()
    except BaseException as error:
        failure.append(error)


def _wait(worker: threading.Thread, stop: threading.Event) -> None:
    until: float | None = None
    while worker.is_alive():
        if hasattr(signal, "sigtimedwait"):
            info = signal.sigtimedwait(STOPS, LOOK_EVERY)
            caught = None if info is None else info.si_signo
        else:
            worker.join(LOOK_EVERY)
            pending = [s for s in signal.sigpending() if s in STOPS]
            caught = signal.sigwait(pending) if pending else None
        if caught is not None and until is not None:
            os._exit(128 + caught)
        if caught is not None:
            stop.set()
            until = time.monotonic() + GRACE
        if until is not None and time.monotonic() > until:
            os._exit(1)
