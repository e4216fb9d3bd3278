"""A read that may hang: many ask, one thread reads, and nobody waits for long."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """What a read gave last. Belongs to one event loop; only ``read`` runs elsewhere.

    Args:
        fresh: seconds for which what was read, or went wrong, is told again.
        patience: seconds that anybody waits for a read.
        elapsed: seconds of any clock that does not go back.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], T],
        *,
        fresh: float,
        patience: float,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._read = read
        self._fresh = fresh
        self._patience = patience
        self._elapsed = elapsed
        self._newest: asyncio.Future[T] | None = None
        self._ended_at = 0.0

    async def get(self) -> T:
        """The value of a read that is under way or has just ended.

        Raises:
            TimeoutError: the read takes longer than that; it goes on, and no other is begun.
            Exception: what the read raised.
        """
        if self._newest is None or self._is_old(self._newest):
            self._newest = self._begin()
        async with asyncio.timeout(self._patience):
            return await asyncio.shield(self._newest)

    def _is_old(self, read: asyncio.Future[T]) -> bool:
        return read.done() and self._elapsed() - self._ended_at >= self._fresh

    def _begin(self) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        future.add_done_callback(self._ended)
        # A daemon: the process need not wait for a database that hangs.
        thread = threading.Thread(
            target=self._run, args=(loop, future), name=self._name, daemon=True
        )
        thread.start()
        return future

    def _run(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[T]) -> None:
        try:
            value = self._read()
        except Exception as error:
            self._tell(loop, future.set_exception, error)
        else:
            self._tell(loop, future.set_result, value)

    def _tell(
        self, loop: asyncio.AbstractEventLoop, tell: Callable[..., None], what: object
    ) -> None:
        with suppress(RuntimeError):  # the server was stopped meanwhile, and its loop is closed
            loop.call_soon_threadsafe(tell, what)

    def _ended(self, _read: asyncio.Future[T]) -> None:
        self._ended_at = self._elapsed()
