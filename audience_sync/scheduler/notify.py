"""Tell systemd how the daemon is (``Type=notify-reload``); without systemd nothing happens.

The protocol is that of sd_notify(3): datagrams of ``NAME=value`` lines to a socket.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from contextlib import suppress

MICROSECONDS = 1_000_000

TAKEN_WITHIN = 0.5
"""Seconds. The main thread says these words, and may not wait for who does not listen."""

READY_TAKEN_WITHIN = 30.0
"""Seconds: without this word it would be ended."""


class Notify:
    """Lines for whoever started us.

    Args:
        environ: ``NOTIFY_SOCKET`` names the socket; ``WATCHDOG_USEC`` asks for signs of life, of
            the process ``WATCHDOG_PID``.
        pid: ours.
    """

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        asked = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        usec = environ.get("WATCHDOG_USEC", "0") if asked else "0"
        self.watchdog = int(usec) / MICROSECONDS if usec.isdigit() else 0.0
        """Seconds within which a sign of life is expected; 0: nobody waits for one."""

    def ready(self, status: str) -> None:
        """Not for the main thread."""
        self._send("READY=1", f"STATUS={status}", within=READY_TAKEN_WITHIN)

    def reloading(self) -> None:
        usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={usec}")

    def stopping(self) -> None:
        self._send("STOPPING=1", "STATUS=finishing what is in flight")

    def status(self, text: str) -> None:
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, *lines: str, within: float | None = None) -> None:
        if not self._address:
            return
        # "@" stands for the NUL byte of an abstract socket.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.settimeout(TAKEN_WITHIN if within is None else within)
            to.sendto("\n".join(lines).encode(), address)
