"""HTTP for destinations; the only module that knows httpx.

One ``Transport`` belongs to one worker: a pool shared by many workers slows down as their number
rises. It asks once and never repeats a request: the pipeline does, and knows about leases.
"""

from __future__ import annotations

import base64
import functools
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import httpx

from audience_sync.destinations.deadline import Watch
from audience_sync.domain.retry import retry_after
from audience_sync.errors import AudienceSyncError, DestinationPaused, RetryLater

MAX_ANSWER = 64 * 1024
"""Bytes of an answer's body that are read. Few answers have more than a few hundred."""

CONNECT, WRITE, READ = 5.0, 10.0, 30.0
"""Seconds for one connect, write or read; the deadline is for all of them together."""

UNUSABLE_ADDRESS = (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError, OverflowError)
"""What httpx and the resolver raise for an address that can never work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """One complete answer: nothing of it is missing but what is beyond what was to be read."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    oversize: bool
    """The body went on after that."""
    retry_after: float | None
    """Seconds of the Retry-After header; ``None`` when absent or garbage."""


class Transport:
    """One worker's HTTP/1.1 connection, kept alive between requests. Not for several threads.

    Args:
        name: the destination's, with which every error text starts.
        headers: sent with every request; ``Authorization`` among them (see ``basic``).
        deadline: seconds that one request may take in all, from connecting to the last byte of
            the answer. Only looking up a host name cannot be cut short; when that took too
            long, nothing is sent.
        clock: the time now, for dates in Retry-After.
        ssl_context: whom to trust; by default certifi, or what ``SSL_CERT_FILE`` names.
    """

    def __init__(
        self,
        *,
        name: str,
        headers: Mapping[str, str],
        deadline: float,
        clock: Callable[[], datetime],
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._name = name
        # Not compressed, so that the number of bytes read is the number of bytes kept.
        self._headers = {"User-Agent": user_agent(), "Accept-Encoding": "identity", **headers}
        self._deadline = deadline
        self._clock = clock
        self._ssl_context = ssl_context
        self._client: httpx.Client | None = None
        self._socket: socket.socket | None = None

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """``request`` with the method POST."""
        return self.request("POST", url, body=body, headers=headers)

    def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        most: int = MAX_ANSWER,
    ) -> Reply:
        """Ask once, and read the answer. Redirects are answers like any other.

        Args:
            most: bytes of the answer's body that are read.

        Raises:
            RetryLater: no complete answer came in time; whether the request had an effect is
                unknown.
            DestinationPaused: the address, the proxy or the certificate cannot be used.
        """
        failure: AudienceSyncError | None = None
        with Watch(self._deadline) as watch:
            try:
                reply = self._exchange(watch, method, url, body, headers or {}, most)
            except (httpx.HTTPError, OSError, *UNUSABLE_ADDRESS) as error:
                failure = self._explain(error, url)
        if watch.expired:
            # A shut connection also ends a body without a length, so no reply counts any more.
            self.close()
            failure = RetryLater(f"{self._name}: no complete answer in {self._deadline:g} s")
        if failure is not None:
            raise failure  # outside of ``except``: httpx's errors hold the URL and the request
        return reply

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = self._socket = None

    def _exchange(
        self,
        watch: Watch,
        method: str,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        most: int,
    ) -> Reply:
        if self._socket is not None:
            watch.add(self._socket)
        self._client = self._client or self._connect_later()
        trace = functools.partial(self._trace, watch)
        with self._client.stream(
            method, url, content=body or None, headers=dict(headers), extensions={"trace": trace}
        ) as response:
            content, oversize = read_bounded(response.iter_raw(), most)
            lower = {name.lower(): value for name, value in response.headers.items()}
            return Reply(
                status=response.status_code,
                headers=lower,
                body=content,
                oversize=oversize,
                retry_after=retry_after(lower.get("retry-after"), self._clock()),
            )

    def _connect_later(self) -> httpx.Client:
        """A client; it connects with its first request, through the environment's proxy."""
        # The watch has nothing to shut down before there is a connection.
        connect = min(CONNECT, self._deadline)
        timeout = httpx.Timeout(connect=connect, write=WRITE, read=READ, pool=connect)
        try:
            return httpx.Client(
                headers=self._headers,
                verify=self._ssl_context or trusted(),
                timeout=timeout,
                limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
                follow_redirects=False,
            )
        except OSError:
            raise DestinationPaused(
                f"{self._name}: the certificates to trust cannot be read",
                hint="check the file that SSL_CERT_FILE names",
            ) from None
        except (ImportError, ValueError, httpx.InvalidURL):
            raise DestinationPaused(
                f"{self._name}: the proxy named in the environment cannot be used",
                hint="check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY: http:// addresses work",
            ) from None

    def _trace(self, watch: Watch, event: str, info: Mapping[str, Any]) -> None:
        """Learn of every connection that httpx makes, before anything is written to it."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")
            watch.add(self._socket)

    def _explain(self, error: Exception, url: str) -> AudienceSyncError:
        if isinstance(error, UNUSABLE_ADDRESS):
            return DestinationPaused(
                f"{self._name}: the endpoint is not a usable address",
                hint="write it as https://host/path",
            )
        host = httpx.URL(url).host
        for cause in causes(error):
            if isinstance(cause, ssl.SSLCertVerificationError):
                return DestinationPaused(
                    f"{self._name}: the certificate of {host} is not trusted "
                    f"({cause.verify_message})",
                    hint="check the endpoint and this machine's clock; "
                    "SSL_CERT_FILE names further certificates to trust",
                )
        unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        return RetryLater(f"{self._name}: {plain(error, host)}", unsent=unsent)


def read_bounded(chunks: Iterable[bytes], limit: int) -> tuple[bytes, bool]:
    """At most ``limit`` bytes, and whether there was more."""
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > limit:
            return bytes(content[:limit]), True
    return bytes(content), False


def plain(error: Exception, host: str) -> str:
    """What went wrong with ``host``, in words that hold nothing of the request."""
    for cause in causes(error):
        if isinstance(cause, socket.gaierror):
            return f"the host name {host} cannot be resolved"
        if isinstance(cause, ConnectionRefusedError):
            return f"{host} refused the connection"
        if isinstance(cause, ssl.SSLError):
            return f"TLS with {host} failed ({cause.reason})"
    if isinstance(error, httpx.TimeoutException):
        return f"{host} did not answer in time"
    if isinstance(error, httpx.ProxyError):
        return f"the proxy would not connect to {host}"
    return f"the connection to {host} broke before a complete answer"


def causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def basic(user: str, password: str) -> str:
    """The value of an ``Authorization`` header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


@functools.cache
def trusted() -> ssl.SSLContext:
    """Made once: it takes 20 ms, and every worker may share it."""
    return httpx.create_ssl_context()


@functools.cache
def user_agent() -> str:
    try:
        return "audience-sync/" + version("audience-sync")
    except PackageNotFoundError:
        return "audience-sync/0"
