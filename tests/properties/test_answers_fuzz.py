"""Any answer of an API, over real sockets: accepted when it is whole and good, else our error.

Within the deadline, and with no more memory than an answer may have.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audience_sync.destinations.segment import SegmentDestination, SegmentSender
from audience_sync.destinations.transport import MAX_ANSWER
from audience_sync.domain.retry import LONGEST_RETRY_AFTER
from audience_sync.errors import (
    BadCalls,
    CredentialsRefused,
    DestinationPaused,
    RetryLater,
)
from audience_sync.pipeline.ports.sending import MemberCalls

DEADLINE = 0.3
LATE = 10.0
"""Seconds: late for that deadline even on a very busy machine."""

OURS = (BadCalls, CredentialsRefused, DestinationPaused, RetryLater)
MEMBERS = [MemberCalls(user_id="person-1", bodies=(b'{"messageId":"m","userId":"person-1"}',))]
SUCCESS = b'{"success":true}'
RESET = struct.pack("ii", 1, 0)

Script = Callable[[socket.socket], None]


class Server:
    """Reads one request on each connection, and then does what the next script says."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._scripts: queue.Queue[Script] = queue.Queue()
        threading.Thread(target=self._serve, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def plays(self, script: Script) -> None:
        self._scripts.put(script)

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                script = self._scripts.get()
                threading.Thread(target=self._play, args=(peer, script), daemon=True).start()

    def _play(self, peer: socket.socket, script: Script) -> None:
        with peer, contextlib.suppress(OSError):  # the other side may leave at any moment
            peer.settimeout(2 * LATE)
            request = peer.makefile("rb")
            length = 0
            while (line := request.readline().lower()).strip():
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            request.read(length)
            script(peer)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def sender(server: Server, deadline: float = DEADLINE) -> SegmentSender:
    return SegmentDestination(
        name="segment",
        write_key="Wk7canary5f3a91",
        endpoint=server.endpoint,
        fingerprint="fingerprint",
        rate=1000.0,
        reserve=0.2,
        concurrency=1,
        clock=lambda: datetime.now(UTC),
        deadline=deadline,
    ).sender()


def outcome(
    server: Server, script: Script, deadline: float = DEADLINE, late: float = LATE
) -> Exception | None:
    """What sending raises; ``None`` when the calls were accepted."""
    server.plays(script)
    sending = sender(server, deadline)
    started = time.monotonic()
    error: Exception | None = None
    try:
        sending.send(MEMBERS)
    except OURS as raised:
        error = raised
    finally:
        sending.close()
    assert time.monotonic() - started < late
    assert "Wk7canary5f3a91" not in f"{error} {error!r}"
    assert "person-1" not in f"{error} {error!r}"
    return error


@dataclass(frozen=True, kw_only=True)
class Answer:
    """``framing``: how the end of the body is told; ``ending``: of the connection after it."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    framing: str
    ending: str
    interim: int
    cut: int | None

    def head(self) -> bytes:
        lines = [b"HTTP/1.1 100 Continue\r\n"] * self.interim
        lines.append(b"HTTP/1.1 %d Some Words" % self.status)
        lines += [name + b": " + value for name, value in self.headers]
        lengths = {"length": 0, "too long": 7, "too short": -1}
        if self.framing in lengths:
            length = max(0, len(self.body) + lengths[self.framing])
            lines.append(b"Content-Length: %d" % length)
        if "chunk" in self.framing:
            lines.append(b"Transfer-Encoding: chunked")
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def bytes(self) -> bytes:
        body = self.body
        if "chunk" in self.framing:
            pieces = [body[i : i + 5] for i in range(0, len(body), 5)][:2_000]
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
            body += b"" if self.framing == "chunks without end" else b"0\r\n\r\n"
        return (self.head() + body)[: self.cut]

    def play(self, peer: socket.socket) -> None:
        peer.sendall(self.bytes())
        if self.ending == "hang":
            peer.recv(1)
        elif self.ending == "reset":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    @property
    def is_whole(self) -> bool:
        if self.cut is not None:
            return False
        by_close = self.framing == "close" and self.ending == "close"
        return by_close or self.framing in {"length", "too short", "chunks"}

    @property
    def is_good(self) -> bool:
        counted = self.body[:-1] if self.framing == "too short" else self.body
        return 200 <= self.status < 300 and says_success(counted)


def says_success(body: bytes) -> bool:
    try:
        answer = json.loads(body)
    except ValueError:
        return False
    return isinstance(answer, dict) and answer.get("success") is True


VALUES = st.one_of(
    st.integers(-(10**12), 10**12).map(lambda number: str(number).encode()),
    st.sampled_from(
        [b"0", b"1.5", b"-1", b"9" * 400, b"soon", b"", b"Wed, 21 Oct 2099 07:28:00 GMT"]
    ),
    st.binary(max_size=12).filter(lambda value: not {0, 10, 13} & set(value)),
)
HEADERS = st.tuples(
    st.sampled_from(
        [
            *(b"Retry-After", b"X-RateLimit-Reset", b"Content-Type", b"Content-Encoding", b"X"),
            *(b"Connection", b"Location", b"Content-Length", b"Transfer-Encoding", b"Date"),
        ]
    ),
    VALUES | st.sampled_from([b"gzip", b"chunked", b"close", b"/v1/batch", b"text/html"]),
)
BODIES = st.sampled_from(
    [
        *(SUCCESS, b' {"success" : true}\n', b'{"success":false}', b'{"success":"true"}', b"true"),
        *(b"", b"<!doctype html>", b'{"success":true', b'{"success":true}{}', b"[true]"),
        *(b'\xff{"success":true}', b'{"success":1}', b'{"success":true,"success":false}'),
        SUCCESS + b" " * MAX_ANSWER,
    ]
) | st.binary(max_size=30)
FRAMINGS = ["length", "too long", "too short", "chunks", "chunks without end", "close"]
ANSWERS = st.builds(
    Answer,
    status=st.sampled_from([200, 201, 204, 299, 301, 400, 401, 403, 404, 408, 413, 420, 429])
    | st.integers(100, 999),
    headers=st.lists(HEADERS, max_size=3).map(tuple),
    body=BODIES,
    framing=st.sampled_from(FRAMINGS),
    ending=st.sampled_from(["close", "close", "reset", "hang"]),
    interim=st.integers(0, 2),
    cut=st.none() | st.integers(0, 200),
)
PLAIN = st.builds(
    Answer,
    status=st.sampled_from([200, 201, 202]),
    headers=st.just(()),
    body=st.sampled_from([SUCCESS, b' {"success" : true}\n', b'{"success":true,"more":[1]}']),
    framing=st.sampled_from(["length", "chunks", "close"]),
    ending=st.just("close"),
    interim=st.integers(0, 3),
    cut=st.none(),
)


@given(answer=ANSWERS)
def test_only_a_whole_and_good_answer_is_acceptance(server: Server, answer: Answer) -> None:
    error = outcome(server, answer.play)
    if error is None:
        assert answer.is_good
        assert answer.is_whole or (answer.cut is not None and answer.cut >= len(answer.bytes()))
    if isinstance(error, RetryLater) and error.after is not None:
        assert 0 <= error.after <= LONGEST_RETRY_AFTER


@given(answer=PLAIN)
def test_a_whole_and_good_answer_is_acceptance(server: Server, answer: Answer) -> None:
    """So that the promise above is not kept by accepting nothing."""
    assert outcome(server, answer.play, deadline=30.0, late=40.0) is None


@given(
    start=st.sampled_from([b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]),
    more=st.binary(max_size=200),
    reset=st.booleans(),
)
def test_any_bytes_are_one_of_our_errors(
    server: Server, start: bytes, more: bytes, reset: bool
) -> None:
    def script(peer: socket.socket) -> None:
        peer.sendall(start + more)
        if reset:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    assert outcome(server, script) is not None or says_success(more)


@given(value=VALUES, name=st.sampled_from([b"Retry-After", b"X-RateLimit-Reset"]))
def test_a_wait_is_at_most_a_day(server: Server, name: bytes, value: bytes) -> None:
    answer = Answer(
        status=429,
        headers=((name, value),),
        body=b"",
        framing="length",
        ending="close",
        interim=0,
        cut=None,
    )
    error = outcome(server, answer.play)
    assert isinstance(error, RetryLater)
    assert error.after is None or 0 <= error.after <= LONGEST_RETRY_AFTER


def endless(head: bytes, piece: bytes) -> Script:
    def script(peer: socket.socket) -> None:
        peer.sendall(head)
        while True:
            peer.sendall(piece)

    return script


OK = b"HTTP/1.1 200 OK\r\n"
ENDLESS: dict[str, Script] = {
    "body": endless(OK + b"\r\n", b" " * 65_536),
    "body of a length": endless(OK + b"Content-Length: %d\r\n\r\n" % 10**18, b" " * 65_536),
    "chunks of one byte": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 999),
    "chunk": endless(OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffff\r\n", b" " * 65_536),
    "chunk's extension": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 65_536),
    "trailer": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 999),
    "header": endless(OK + b"X: ", b"x" * 65_536),
    "headers": endless(OK, b"X: y\r\n" * 999),
    "status line": endless(b"HTTP/1.1 200 ", b"x" * 65_536),
    "interim answers": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 999),
    "early hints": endless(b"", (b"HTTP/1.1 103 Hints\r\n" + b"Link: x\r\n" * 99 + b"\r\n") * 9),
}


@pytest.mark.parametrize("script", ENDLESS.values(), ids=ENDLESS)
def test_an_answer_without_an_end_takes_neither_time_nor_memory(
    server: Server, script: Script
) -> None:
    assert outcome(server, lambda peer: peer.close()) is not None  # all is imported
    tracemalloc.start()
    try:
        error = outcome(server, script)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(error, RetryLater)
    assert peak < 4_000_000
