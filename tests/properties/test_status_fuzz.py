"""Whatever is sent to the status server: an answer or none, no line in the log, and it goes on."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from audience_sync.web.server import StatusServer
from tests.fakes.facts import Told, started

PIECES = [
    b"GET ", b"HEAD ", b"POST ", b"/metrics", b"/healthz", b"/", b"*", b"http://localhost/metrics",
    b" HTTP/1.1", b" HTTP/1.0", b" HTTP/9.9", b"\r\n", b"\n", b"\r\n\r\n", b" ", b":",
    b"Host: localhost", b"Host: evil.example", b"Content-Length: 5", b"Content-Length: -1",
    b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Connection: keep-alive",
    b"Connection: upgrade\r\nUpgrade: websocket", b"Connection: Upgrade, HTTP2-Settings\r\n"
    b"Upgrade: h2c", b"Authorization: Bearer \xff", b"5\r\nabcde\r\n", b"0\r\n\r\n", b"\0", b"\xff",
]  # fmt: skip
BEGUN = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
ANSWERS = {b"100", b"200", b"400", b"404", b"405", b"421"}


@pytest.fixture(scope="module")
def server() -> Iterator[StatusServer]:
    made = started(Told())
    yield made
    made.stop()


@pytest.fixture(scope="module")
def logged() -> Iterator[list[str]]:
    """Of libraries too."""
    found: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler = Kept()
    logging.getLogger().addHandler(handler)
    yield found
    logging.getLogger().removeHandler(handler)


@given(
    begun=st.booleans(),
    pieces=st.lists(st.sampled_from(PIECES) | st.binary(max_size=40), max_size=14),
)
@example(begun=True, pieces=[b"Transfer-Encoding: chunked\r\n\r\n", b"zz\r\n"])
@example(begun=True, pieces=[b"Content-Length: 5\r\n\r\n"])
@example(begun=True, pieces=[b"\r\n", BEGUN, b"\r\n", BEGUN, b"\r\n"])
def test_whatever_is_sent(
    server: StatusServer, logged: list[str], begun: bool, pieces: list[bytes]
) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        answer = b""
        try:
            client.sendall((BEGUN if begun else b"") + b"".join(pieces))
            client.shutdown(socket.SHUT_WR)
            while piece := client.recv(65_536):
                answer += piece
        except ConnectionError:
            pass  # it has heard enough
    assert set(re.findall(rb"^HTTP/1\.1 (\d{3}) ", answer, re.MULTILINE)) <= ANSWERS
    assert b"Traceback" not in answer
    if answer:
        assert answer.startswith(b"HTTP/1.1 ")
    assert httpx.get(f"http://127.0.0.1:{server.port}/healthz").status_code == 200
    assert logged == []
