"""A thread that answers HTTP: what the status server and the sandbox have in common."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
import uvicorn

from audience_sync.errors import AudienceSyncError, CannotListen, ConfigError
from audience_sync.serving.holder import holder

log = structlog.get_logger(__name__)

GRACE = 1
"""Seconds that requests under way have when the server is stopped."""

STOPS_WITHIN = 5.0
"""Seconds after which nobody waits for its thread any more."""

LARGEST_HEAD = 16_384
"""Bytes of a request line and its headers."""

BACKLOG = 128


class Server:
    """Started and stopped once.

    Args:
        name: of its thread, and in the log.
        setting: how the address is set, for the error: ``status.listen``, ``--listen``.
        listen: an IP address and a port; port 0 is any that is free.
        app: an ASGI application; it sees neither lifespan nor websockets.
        protocol: what uvicorn makes of each connection.
        idle: seconds that a connection stays open without a request.
    """

    def __init__(
        self,
        *,
        name: str,
        setting: str,
        listen: tuple[str, int],
        app: object,
        protocol: Any,
        idle: int = 5,
    ) -> None:
        self._name = name
        self._setting = setting
        self._listen = listen
        self._socket: socket.socket | None = None
        self._server = _Unsignalled(_settings(app, protocol, idle))
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on, once it was started."""
        return self._port

    @property
    def is_alive(self) -> bool:
        """False once it has ended, by ``stop`` or by itself."""
        return self._thread.is_alive()

    def transport(self, client: object) -> asyncio.Transport | None:
        """The connection of the client that a request's scope names. For the server's thread."""
        for connection in self._server.server_state.connections:
            if getattr(connection, "client", None) == client:
                transport: asyncio.Transport = connection.transport
                return transport
        return None

    def start(self) -> None:
        """Listen; from now on connections are taken.

        Raises:
            CannotListen: the port is taken, or the address is not there: perhaps not for long.
            ConfigError: the port is not for us.
        """
        self._socket = self._listening()
        self._port: int = self._socket.getsockname()[1]
        with _without_signals():
            self._thread.start()

    def stop(self) -> None:
        """Within ``STOPS_WITHIN`` seconds no connection is left; does nothing the second time."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(STOPS_WITHIN)
        if self._thread.is_alive():
            log.warning("server does not stop", server=self._name)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            log.error("server ended", server=self._name, exc_info=error)

    async def _serve(self) -> None:
        assert self._socket is not None
        await self._server.serve(sockets=[self._socket])
        for connection in [*self._server.server_state.connections]:
            connection.transport.abort()  # who does not read the answer
        await asyncio.sleep(0)

    def _listening(self) -> socket.socket:
        """A socket that takes connections already; two that are only bound could share a port."""
        host, port = self._listen
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # With its protocol named: else asyncio does not turn Nagle's algorithm off, and each
        # answer waits 40 ms for the acknowledgement of its own head.
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if host == "::":
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            made.bind((host, port))
            made.listen(BACKLOG)
            made.setblocking(False)
        except OSError as error:
            made.close()
            raise self._refused(error) from None
        return made

    def _refused(self, error: OSError) -> AudienceSyncError:
        host, port = self._listen
        if error.errno == errno.EACCES:
            what = f"may not listen on port {port} (ports below 1024 are for root; choose another)"
            return ConfigError([f"{self._setting}: {what}"])
        if error.errno == errno.EADDRINUSE:
            who = holder(host, port)
            what = f"port {port} of {host} is taken" + (f" by {who}" if who else "")
            hint = "end what listens there, or choose another port"
        elif error.errno == errno.EADDRNOTAVAIL:
            what = f"this machine has no address {host}"
            hint = "it may come later: start again then; or choose another, such as 127.0.0.1"
        else:
            what = f"cannot listen on port {port} of {host} ({error.strerror})"
            hint = "start again later, or choose another address"
        return CannotListen(f"{self._setting}: {what}", hint=hint)


class _Unsignalled(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: the main thread asks for them."""
        yield


def _settings(app: object, protocol: Any, idle: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=protocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        interface="asgi3",
        backlog=BACKLOG,
        h11_max_incomplete_event_size=LARGEST_HEAD,
        timeout_keep_alive=idle,
        timeout_graceful_shutdown=GRACE,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="error",  # its warnings are about requests, as many as somebody likes to send
    )


@contextmanager
def _without_signals() -> Iterator[None]:
    """A thread that is started here never takes one from the main thread, whoever starts it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
