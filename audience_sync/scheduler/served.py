"""The status server of the configuration in use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import structlog

from audience_sync.errors import AudienceSyncError

if TYPE_CHECKING:
    from audience_sync.config.load import Loaded

log = structlog.get_logger(__name__)


class Server(Protocol):
    """What tells others how we are."""

    @property
    def is_alive(self) -> bool: ...

    def start(self) -> None:
        """Raises AudienceSyncError: it cannot listen."""

    def stop(self) -> None: ...


class Served:
    """Has one server at a time, as the next one may want its port.

    Args:
        serve: the server that a configuration wants, not yet started.
    """

    def __init__(self, serve: Callable[[Loaded], Server | None]) -> None:
        self._serve = serve
        self._server: Server | None = None

    def start(self, loaded: Loaded) -> None:
        """Raises AudienceSyncError: it cannot listen."""
        server = self._serve(loaded)
        if server is not None:
            server.start()
        self._server = server

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    @contextmanager
    def replaced(self, former: Loaded, loaded: Loaded) -> Iterator[None]:
        """The server of ``loaded`` from here on; that of ``former`` again after an error.

        Raises:
            AudienceSyncError: it cannot listen.
        """
        if loaded.config.status == former.config.status and not self._is_missing(former):
            yield
            return
        try:
            self.stop()
            self.start(loaded)
            yield
        except BaseException:
            self._back(former)
            raise

    def _is_missing(self, loaded: Loaded) -> bool:
        is_alive = self._server is not None and self._server.is_alive
        return loaded.config.status is not None and not is_alive

    def _back(self, former: Loaded) -> None:
        self.stop()
        try:
            self.start(former)
        except AudienceSyncError as error:
            log.error("the status server is off", error=str(error), hint=error.hint)
