"""The deadline of one request, whatever the other side does."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import Self


class Watch:
    """Shuts a request's connection down at its deadline.

    httpx's timeouts are per read, so an answer of one byte per second would never end. A shutdown
    wakes a thread that is blocked in ``recv``; closing the descriptor does not.
    """

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._over = False
        self._copies: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            self._over = True
            for copy in self._copies:
                copy.close()

    def add(self, connection: socket.socket) -> None:
        """Watch a duplicate of the descriptor, for the length of this request.

        httpx may close its own at any time, and TLS moves it to another object; a duplicate kept
        for longer would hold a connection open that httpx has closed.
        """
        if connection.fileno() < 0:
            return
        copy = socket.socket(connection.family, connection.type, fileno=os.dup(connection.fileno()))
        with self._lock:
            self._copies.append(copy)
            if self.expired:
                shut_down(copy)

    def _expire(self) -> None:
        with self._lock:
            if self._over:
                return
            self.expired = True
            for copy in self._copies:
                shut_down(copy)


def shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side was first
        connection.shutdown(socket.SHUT_RDWR)
