"""A connection to the status server: one request, and not for long."""

from __future__ import annotations

import asyncio
from itertools import count

from uvicorn.protocols.http.h11_impl import H11Protocol

LONGEST = 15.0
"""Seconds from connecting to the last byte of the answer."""

MOST = 256
"""Connections at once: a quarter of the files that a process may open by default."""


class BriefConnection(H11Protocol):
    """Cut off after ``LONGEST`` seconds, or when it is the oldest of more than ``MOST``.

    Who opens connections and says nothing thereby takes them from himself, and neither files from
    the daemon nor answers from a probe. Every answer ends its connection (``gate.HEADERS``), so
    the time is that of one request.
    """

    numbers = count()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.number = next(self.numbers)
        self._deadline = self.loop.call_later(LONGEST, transport.abort)
        # One that was cut stays among them until the loop comes to it.
        alive = [c for c in self.connections if not c.transport.is_closing()]
        if len(alive) > MOST:
            min(alive, key=_number).transport.abort()

    def send_400_response(self, msg: str) -> None:
        """What is wrong came after a head that somebody is about to answer: that is left out."""
        if self.cycle is not None:
            self.cycle.disconnected = True
        super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)


def _number(connection: object) -> int:
    return getattr(connection, "number", 0)
