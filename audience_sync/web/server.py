"""The status server: a thread of the daemon that answers who watches it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime

import structlog

from audience_sync.serving.server import Server
from audience_sync.standing.facts import Facts
from audience_sync.web.access import Access
from audience_sync.web.connection import BriefConnection
from audience_sync.web.routes import application

log = structlog.get_logger(__name__)


class StatusServer:
    """Started and stopped once.

    Args:
        listen: an IP address and a port; port 0 is any that is free.
        token: who asks must send it, if there is one.
        hosts: names besides those that every machine has, in lower case.
        clock: the time now.
    """

    def __init__(
        self,
        *,
        listen: tuple[str, int],
        token: str | None,
        hosts: Collection[str],
        facts: Facts,
        clock: Callable[[], datetime],
    ) -> None:
        access = Access(token=token, hosts=frozenset(hosts))
        self._address = listen[0]
        self._server = Server(
            name="status",
            setting="status.listen",
            listen=listen,
            app=application(facts, access, clock),
            protocol=BriefConnection,
        )

    @property
    def port(self) -> int:
        """The port that it listens on, once it was started."""
        return self._server.port

    @property
    def is_alive(self) -> bool:
        """False once it has ended, by ``stop`` or by itself."""
        return self._server.is_alive

    def start(self) -> None:
        """Listen; from now on connections are taken.

        Raises:
            CannotListen, ConfigError: see ``serving.server.Server.start``.
        """
        self._server.start()
        log.info("status server listens", address=self._address, port=self.port)

    def stop(self) -> None:
        """Within ``STOPS_WITHIN`` seconds no connection is left; does nothing the second time."""
        self._server.stop()
