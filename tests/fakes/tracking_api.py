"""A local server that speaks Segment's HTTP Tracking API, with its limits and with faults.

    python tests/fakes/tracking_api.py --port 0 --log FILE [--fail 0.05] [--faults a,b] [--seed N]

prints its port on the first line. Every accepted call is one JSON line of the log, flushed before
the answer; ``LOG.refused`` gets one line per request that broke a limit. The path
``/fault/<name>/v1/batch`` has that fault for certain, whatever ``--fail`` says.

It is stricter than Segment where Segment answers 200 and drops what it got.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import random
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

MAX_BATCH_BYTES = 500_000
MAX_CALL_BYTES = 32 * 1024
MAX_CALLS = 2_500
MAX_TRAITS = 299
MAX_MESSAGE_ID = 100

CONTENT = {"identify": "traits", "track": "properties"}
JSON = "application/json"
SUCCESS = b'{"success":true}'
PORTAL = b"<!doctype html><title>Welcome to our Wi-Fi</title><p>Please accept the terms."
LINGER = struct.pack("ii", 1, 0)


class Refused(Exception):
    """The request breaks a limit or names a poison user: 400."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: TrackingApi

    def setup(self) -> None:
        self.connection_number = self.server.count("connections")
        super().setup()
        self.connection.settimeout(self.server.options.idle)

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        fault = FAULTS[path.split("/")[2]] if path.startswith("/fault/") else self.server.draw()
        if fault is not None and fault.unread:
            fault.answer(self)
            return
        size = int(self.headers.get("Content-Length", 0))
        raw = self.rfile.read(size)
        if len(raw) < size:  # the client was killed in the middle of it
            self.close_connection = True
            return
        time.sleep(self.server.options.latency)
        if not self.is_authorised():
            self.reply(401, b'{"success":false,"message":"unauthorised"}')
            return
        if not path.endswith("/v1/batch"):
            self.reply(404)
            return
        self.apply(raw, fault)

    def apply(self, raw: bytes, fault: Fault | None) -> None:
        try:
            calls = self.server.read_batch(raw, self.headers.get("Content-Encoding"))
        except Refused as refused:
            self.server.write_refused(str(refused))
            self.reply(400, json.dumps({"success": False, "message": str(refused)}).encode())
            return
        if fault is not None and fault.batches_only and len(calls) < 2:
            fault = None
        if fault is None or fault.applies:
            self.server.write_accepted(calls, self.connection_number, self.client_address[0])
        if fault is None:
            self.reply(200, SUCCESS)
        else:
            fault.answer(self)

    def do_HEAD(self) -> None:
        self.reply(405, bodiless=True)

    def do_GET(self) -> None:
        """``/v1/projects/<write key>/settings``, as cdn.segment.com has it."""
        parts = [unquote(part) for part in urlsplit(self.path).path.split("/")]
        known = parts[2:] == ["projects", self.server.write_key(), "settings"]
        self.reply(200 if known else 404, b"{}")

    def is_authorised(self) -> bool:
        expected = b64encode(f"{self.server.write_key()}:".encode()).decode()
        return self.headers.get("Authorization") == f"Basic {expected}"

    def reply(
        self,
        status: int,
        body: bytes = b"",
        *,
        headers: dict[str, str] | None = None,
        kind: str = JSON,
        bodiless: bool = False,
    ) -> None:
        """Head and body in one write: in two, Nagle and delayed ACKs cost 40 ms."""
        head = self.head(status, len(body), kind=kind, headers=headers)
        self.wfile.write(head + (b"" if bodiless else body))

    def head(
        self, status: int, length: int, *, kind: str = JSON, headers: dict[str, str] | None = None
    ) -> bytes:
        fields = {"Content-Type": kind, "Content-Length": str(length), **(headers or {})}
        lines = [f"HTTP/1.1 {status} {self.responses.get(status, ('Other',))[0]}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        self.hang_up()

    def hang_up(self) -> None:
        self.close_connection = True
        os.close(self.connection.detach())

    def drip(self, head: bytes, rest: bytes) -> None:
        self.close_connection = True
        self.wfile.write(head)
        for byte in rest:
            time.sleep(self.server.options.drip)
            self.wfile.write(bytes([byte]))

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """``unread``: the body is not even read. ``applies``: the calls are logged first.

    ``batches_only``: a single call is accepted, so that bisecting heals it. ``pauses``,
    ``on_request``: not among the default faults; the latter not in ``all`` either.
    """

    answer: Callable[[Handler], None]
    applies: bool = False
    unread: bool = False
    batches_only: bool = False
    pauses: bool = False
    on_request: bool = False


def status(code: int, /, **headers: str) -> Callable[[Handler], None]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.reply(code, b'{"success":false}', headers=named)


def retry_date(handler: Handler) -> None:
    handler.reply(429, headers={"Retry-After": formatdate(time.time() + 2, usegmt=True)})


def hang(handler: Handler) -> None:
    time.sleep(handler.server.options.hang)
    handler.reset()


def truncate(handler: Handler) -> None:
    handler.wfile.write(handler.head(200, len(SUCCESS) + 100) + SUCCESS)
    handler.hang_up()


def never_end(handler: Handler) -> None:
    """A whole answer, but without a length, on a connection that stays open."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + SUCCESS)
    hang(handler)


def huge(handler: Handler) -> None:
    """Right at the start and 64 MiB long."""
    handler.close_connection = True
    handler.wfile.write(handler.head(200, 64 * 2**20) + SUCCESS)
    for _ in range(1024):
        handler.wfile.write(b" " * 65_536)


FAULTS: dict[str, Fault] = {
    "reset_before": Fault(answer=Handler.reset, unread=True),
    "reset_after": Fault(answer=Handler.reset, applies=True),
    "close_after": Fault(answer=Handler.hang_up, applies=True),
    "hang_after": Fault(answer=hang, applies=True),
    "429_seconds": Fault(answer=status(429, Retry_After="1")),
    "429_zero": Fault(answer=status(429, Retry_After="0")),
    "429_negative": Fault(answer=status(429, Retry_After="-1")),
    "429_date": Fault(answer=retry_date),
    "429_garbage": Fault(answer=status(429, Retry_After="soon, please")),
    "429_reset": Fault(answer=status(429, X_RateLimit_Reset="1")),
    "429_huge": Fault(answer=status(429, Retry_After="1000000000"), on_request=True),
    "420": Fault(answer=status(420, Retry_After="1")),
    "500": Fault(answer=status(500)),
    "502": Fault(answer=status(502)),
    "503": Fault(answer=status(503, Retry_After="1")),
    "504": Fault(answer=status(504)),
    "400": Fault(answer=status(400), batches_only=True),
    "413": Fault(answer=status(413), batches_only=True),
    "301": Fault(answer=status(301, Location="/v1/batch"), pauses=True),
    "401": Fault(answer=status(401), pauses=True),
    "403": Fault(answer=status(403), pauses=True),
    "404": Fault(answer=status(404), pauses=True),
    "html_200": Fault(answer=lambda handler: handler.reply(200, PORTAL, kind="text/html")),
    "false_200": Fault(answer=status(200)),
    "empty_200": Fault(answer=lambda handler: handler.reply(200)),
    "empty_200_after": Fault(answer=lambda handler: handler.reply(200), applies=True),
    "truncated": Fault(answer=truncate, applies=True),
    "never_ends": Fault(answer=never_end, applies=True),
    "slow_head": Fault(
        answer=lambda handler: handler.drip(b"", handler.head(200, len(SUCCESS)) + SUCCESS),
        applies=True,
    ),
    "slow_body": Fault(
        answer=lambda handler: handler.drip(handler.head(200, len(SUCCESS)), SUCCESS),
        applies=True,
    ),
    "huge": Fault(answer=huge, applies=True),
}


def faults(names: str | None) -> list[Fault]:
    """``None``: those after which the same destination can go on by itself."""
    if names is None:
        return [f for f in FAULTS.values() if not (f.pauses or f.on_request)]
    if names == "all":
        return [f for f in FAULTS.values() if not f.on_request]
    return [FAULTS[name] for name in names.split(",")]


@dataclass(frozen=True, kw_only=True)
class Options:
    log: Path
    port: int = 0
    write_key: str = "test"
    key_file: Path | None = None
    fail: float = 0.0
    faults: str | None = None
    times: int | None = None
    seed: int | None = None
    latency: float = 0.0
    hang: float = 1.0
    drip: float = 1.0
    idle: float | None = None
    poison_file: Path | None = None
    cert: Path | None = None
    until_eof: bool = False


def _cut_unended(log: Path) -> None:
    """The line of which a killed server had written a part, and which it never answered."""
    if log.exists():
        with log.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


class TrackingApi(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, options: Options) -> None:
        self.options = options
        self._lock = threading.Lock()
        self._random = random.Random(options.seed)
        self._faults = faults(options.faults)
        self._faults_left = options.times
        self._counts = {"connections": 0, "requests": 0}
        _cut_unended(options.log)
        self._log = options.log.open("a", encoding="utf-8")
        self._refused = Path(f"{options.log}.refused")
        self._refused.touch()
        poison = options.poison_file
        self._poison = set(poison.read_text("utf-8").splitlines()) if poison else set()
        super().__init__(("127.0.0.1", options.port), Handler)
        if options.cert is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(options.cert)
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def write_key(self) -> str:
        """The one that is accepted at this moment."""
        file = self.options.key_file
        return file.read_text("utf-8") if file else self.options.write_key

    def count(self, what: str) -> int:
        with self._lock:
            self._counts[what] += 1
            return self._counts[what]

    def draw(self) -> Fault | None:
        with self._lock:
            if self._faults_left == 0 or self._random.random() >= self.options.fail:
                return None
            if self._faults_left is not None:
                self._faults_left -= 1
            return self._random.choice(self._faults)

    def read_batch(self, raw: bytes, encoding: str | None) -> list[dict[str, Any]]:
        try:
            text = gzip.decompress(raw) if encoding == "gzip" else raw
            calls = json.loads(text)["batch"]
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            raise Refused("not a batch") from None
        if len(text) > MAX_BATCH_BYTES or len(calls) > MAX_CALLS:
            raise Refused(f"{len(text)} bytes, {len(calls)} calls")
        for call in calls:
            check(call)
            if call["userId"] in self._poison:
                raise Refused("poison")
        return list(calls)

    def write_accepted(self, calls: list[dict[str, Any]], connection: int, peer: str) -> None:
        request = self.count("requests")
        common = {"request": request, "connection": connection, "peer": peer, "time": time.time()}
        lines = "".join(json.dumps({**entry(call), **common}) + "\n" for call in calls)
        with self._lock:
            self._log.write(lines)
            self._log.flush()

    def write_refused(self, reason: str) -> None:
        with self._lock, self._refused.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"reason": reason, "time": time.time()}) + "\n")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up, and ourselves having done so, are the point of this server."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def entry(call: dict[str, Any]) -> dict[str, Any]:
    """What the log says of a call; ``hash`` is of its body without the id."""
    body = {name: value for name, value in call.items() if name != "messageId"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return {
        "messageId": call["messageId"],
        "userId": call["userId"],
        "hash": hashlib.sha256(text).hexdigest(),
        "body": body,
    }


def check(call: dict[str, Any]) -> None:
    size = len(json.dumps(call, separators=(",", ":"), ensure_ascii=False).encode())
    message_id = call.get("messageId")
    if size > MAX_CALL_BYTES:
        raise Refused(f"a call of {size} bytes")
    if call.get("type") not in CONTENT or not call.get("userId") or "sentAt" in call:
        raise Refused("not an Identify or Track call")
    content = call.get(CONTENT[call["type"]])
    if not isinstance(content, dict) or len(content) > MAX_TRAITS:
        raise Refused("traits or properties missing, or too many")
    if call["type"] == "track" and not (isinstance(call.get("event"), str) and call["event"]):
        raise Refused("an event without a name")
    if not isinstance(message_id, str) or not 0 < len(message_id) <= MAX_MESSAGE_ID:
        raise Refused("messageId missing or too long")


@dataclass(frozen=True, kw_only=True)
class Served:
    """A running server. ``endpoint`` is what ``[destinations.segment]`` would have."""

    url: str
    log: Path
    process: subprocess.Popen[str]

    @property
    def endpoint(self) -> str:
        return f"{self.url}/v1"

    def faulty(self, fault: str) -> str:
        """An endpoint where every request has this fault."""
        return f"{self.url}/fault/{fault}/v1"

    def calls(self) -> list[dict[str, Any]]:
        """Accepted calls in the order in which they were applied, repeats included."""
        return read_lines(self.log)

    def refused(self) -> list[dict[str, Any]]:
        return read_lines(Path(f"{self.log}.refused"))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Without a last line that is being written."""
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


@contextmanager
def serve(*, log: Path, **options: Any) -> Iterator[Served]:
    """Run the server in its own process, with the command line's options as keywords."""
    command = [sys.executable, __file__, "--until-eof", "--log", str(log)]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            scheme = "https" if "cert" in options else "http"
            yield Served(url=f"{scheme}://127.0.0.1:{port}", log=log, process=process)
        finally:
            process.terminate()


def exit_at_eof() -> None:
    """End with the process that holds the other end of stdin, even if that was killed."""
    while os.read(0, 4096):
        pass
    os._exit(0)


def parse(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--write-key", default="test")
    parser.add_argument("--key-file", type=Path, help="holds the write key: it can be rotated")
    parser.add_argument("--fail", type=float, default=0.0, help="share of requests, 0 to 1")
    parser.add_argument("--faults", help=f"names, or all: {', '.join(FAULTS)}")
    parser.add_argument("--times", type=int, help="no more faults after so many")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before every answer")
    parser.add_argument("--hang", type=float, default=1.0, help="seconds of hang_after")
    parser.add_argument("--drip", type=float, default=1.0, help="seconds per byte of slow_*")
    parser.add_argument("--idle", type=float, help="seconds until an idle connection is closed")
    parser.add_argument("--poison-file", type=Path, help="user ids that make a request a 400")
    parser.add_argument("--cert", type=Path, help="PEM with key and certificate: serve TLS")
    parser.add_argument("--until-eof", action="store_true", help="exit when stdin ends")
    return Options(**vars(parser.parse_args(arguments)))


def main() -> None:
    options = parse(sys.argv[1:])
    server = TrackingApi(options)
    print(server.server_address[1], flush=True)
    if options.until_eof:
        threading.Thread(target=exit_at_eof, daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
