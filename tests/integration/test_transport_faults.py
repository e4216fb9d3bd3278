"""Every way in which an HTTP request can fail, over real sockets, and what the caller is told."""

from __future__ import annotations

import contextlib
import gzip
import os
import select
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from audience_sync.destinations import segment
from audience_sync.destinations.segment import SegmentDestination
from audience_sync.destinations.transport import MAX_ANSWER, Transport, user_agent
from audience_sync.errors import (
    AudienceSyncError,
    BadCalls,
    CredentialsRefused,
    DestinationPaused,
    RetryLater,
)
from audience_sync.pipeline.ports.sending import MemberCalls
from tests.fakes.tracking_api import FAULTS, Served, serve

DEADLINE = 2.0
"""Seconds: long for whoever answers at all, even on a busy machine."""
LATE = 7.0
"""Seconds: late for the deadline, and far from what a fault takes."""

DRIP = 0.5
"""Seconds between two bytes: less than any single read may take, but the answer takes 8 s."""

KEY = "write/key?of=mine"


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    log = tmp_path_factory.mktemp("api") / "calls.log"
    with serve(log=log, write_key=KEY, hang=20, drip=DRIP, idle=0.5) as served:
        yield served


def now() -> datetime:
    return datetime.now(UTC)


def destination(endpoint: str, **other: Any) -> SegmentDestination:
    values: dict[str, Any] = {
        "name": "segment",
        "write_key": KEY,
        "endpoint": endpoint,
        "fingerprint": "fingerprint",
        "rate": 1000.0,
        "reserve": 0.2,
        "concurrency": 1,
        "clock": now,
        "deadline": DEADLINE,
    }
    return SegmentDestination(**{**values, **other})


def calls(*user_ids: str) -> list[MemberCalls]:
    return [
        MemberCalls(
            user_id=user_id,
            bodies=(
                f'{{"messageId":"m-{user_id}","type":"identify","userId":"{user_id}",'
                '"traits":{"vip":true}}'.encode(),
            ),
        )
        for user_id in user_ids
    ]


def failure(endpoint: str, *user_ids: str, **other: Any) -> AudienceSyncError:
    """What sending raises, within the deadline, with nothing secret in it or behind it."""
    sender = destination(endpoint, **other).sender()
    started = time.monotonic()
    with pytest.raises(AudienceSyncError) as raised:
        sender.send(calls(*(user_ids or ("person1", "person2"))))
    assert time.monotonic() - started < LATE
    sender.close()
    error = raised.value
    for text in (str(error), str(error.hint), repr(error)):
        assert KEY not in text
        assert "person" not in text
        assert "/v1" not in text.replace("api.segment.io/v1", "").replace("apis.com/v1", "")
    assert error.__cause__ is None
    assert error.__context__ is None
    return error


def applied(api: Served, user_id: str) -> bool:
    return any(one["userId"] == user_id for one in api.calls())


# name: (what is raised, whether the server had applied the calls)
EXPECTED: dict[str, tuple[type[AudienceSyncError], bool]] = {
    "reset_before": (RetryLater, False),
    "reset_after": (RetryLater, True),
    "close_after": (RetryLater, True),
    "hang_after": (RetryLater, True),
    "429_seconds": (RetryLater, False),
    "429_zero": (RetryLater, False),
    "429_negative": (RetryLater, False),
    "429_date": (RetryLater, False),
    "429_garbage": (RetryLater, False),
    "429_reset": (RetryLater, False),
    "429_huge": (RetryLater, False),
    "420": (RetryLater, False),
    "500": (RetryLater, False),
    "502": (RetryLater, False),
    "503": (RetryLater, False),
    "504": (RetryLater, False),
    "400": (BadCalls, False),
    "413": (BadCalls, False),
    "301": (DestinationPaused, False),
    "401": (CredentialsRefused, False),
    "403": (CredentialsRefused, False),
    "404": (DestinationPaused, False),
    "html_200": (RetryLater, False),
    "false_200": (RetryLater, False),
    "empty_200": (RetryLater, False),
    "empty_200_after": (RetryLater, True),
    "truncated": (RetryLater, True),
    "never_ends": (RetryLater, True),
    "slow_head": (RetryLater, True),
    "slow_body": (RetryLater, True),
    "huge": (RetryLater, True),
}


def test_every_fault_is_expected() -> None:
    assert EXPECTED.keys() == FAULTS.keys()


@pytest.mark.parametrize("name", FAULTS)
def test_fault(api: Served, name: str) -> None:
    kind, was_applied = EXPECTED[name]
    error = failure(api.faulty(name), name, "second")
    assert type(error) is kind
    assert applied(api, name) is was_applied
    assert not getattr(error, "unsent", False), "it reached the server, who may count it"
    if kind is not RetryLater and kind is not BadCalls:
        assert name in str(error)
        assert error.hint


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("429_seconds", 1, 1),
        ("429_zero", 0, 0),
        ("429_negative", 0, 0),
        ("429_date", 0.2, 2.0),
        ("429_reset", 1, 1),
        ("429_huge", 86_400, 86_400),
        ("420", 1, 1),
    ],
)
def test_the_wait_that_is_asked_for(api: Served, name: str, least: float, most: float) -> None:
    error = failure(api.faulty(name))
    assert isinstance(error, RetryLater)
    assert error.slow_down
    assert error.after is not None
    assert least <= error.after <= most


def test_no_wait_is_made_up(api: Served) -> None:
    garbage = failure(api.faulty("429_garbage"))
    assert isinstance(garbage, RetryLater)
    assert garbage.after is None
    assert garbage.slow_down
    unavailable = failure(api.faulty("503"))
    assert isinstance(unavailable, RetryLater)
    assert unavailable.after == 1
    assert not unavailable.slow_down


def test_a_fault_for_batches_heals_by_bisecting(api: Served) -> None:
    sender = destination(api.faulty("413")).sender()
    with pytest.raises(BadCalls):
        sender.send(calls("half1", "half2"))
    sender.send(calls("half1"))
    sender.send(calls("half2"))
    sender.close()
    assert applied(api, "half1")
    assert applied(api, "half2")


def test_poison_users_and_a_wrong_key(tmp_path: Path) -> None:
    (tmp_path / "poison").write_text("bad-person\n")
    with serve(log=tmp_path / "log", poison_file=tmp_path / "poison") as api:
        assert type(failure(api.endpoint, "good", "bad-person", write_key="test")) is BadCalls
        assert type(failure(api.endpoint, "good", write_key="wrong")) is CredentialsRefused
        assert api.calls() == []
        assert [one["reason"] for one in api.refused()] == ["poison"]


def test_a_refused_key_is_asked_for_again_by_one_worker_for_all(api: Served) -> None:
    asked: list[str] = []

    def reread() -> str:
        asked.append("asked")
        return KEY

    place = destination(api.endpoint, write_key="rotated-away", reread=reread)
    senders = [place.sender(), place.sender()]
    with pytest.raises(RetryLater, match="there is a new one"):
        senders[0].send(calls("rotated1"))
    for sender in senders:
        sender.send(calls("rotated1"))
        sender.close()
    assert asked == ["asked"]
    assert applied(api, "rotated1")


@pytest.mark.parametrize("now_configured", [None, "", "rotated-away"])
def test_a_key_that_is_still_configured_pauses(api: Served, now_configured: str | None) -> None:
    error = failure(api.endpoint, write_key="rotated-away", reread=lambda: now_configured)
    assert type(error) is CredentialsRefused


def test_a_new_key_that_is_refused_as_well_pauses(api: Served) -> None:
    sender = destination(api.endpoint, write_key="first", reread=lambda: "second").sender()
    with pytest.raises(RetryLater):
        sender.send(calls("rotated2"))
    with pytest.raises(CredentialsRefused):
        sender.send(calls("rotated2"))
    sender.close()


def test_a_share_of_requests_fails_until_it_is_over(tmp_path: Path) -> None:
    with serve(log=tmp_path / "log", fail=1.0, faults="500,502", times=3, seed=1) as api:
        for _ in range(3):
            assert type(failure(api.endpoint, write_key="test")) is RetryLater
        sender = destination(api.endpoint, write_key="test").sender()
        sender.send(calls("u1"))
        sender.close()
        assert [one["userId"] for one in api.calls()] == ["u1"]


def test_after_a_deadline_the_same_sender_goes_on(api: Served) -> None:
    transport = api_transport()
    good = f"{api.endpoint}/projects/someone/settings"
    for fault in ("slow_head", "never_ends"):
        assert transport.request("GET", good).status == 404
        with pytest.raises(RetryLater, match="no complete answer in 2 s"):
            post(transport, api.faulty(fault))
    assert transport.request("GET", good).status == 404
    transport.close()


def test_descriptors_and_threads_do_not_pile_up(api: Served) -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    failure(api.faulty("500"))
    before = held()
    for fault in ("hang_after", "reset_after", "truncated", "huge", "500"):
        failure(api.faulty(fault))
    until(lambda: held() <= before)


def test_an_abandoned_answer_does_not_keep_its_connection(api: Served) -> None:
    with conversation(endless) as (url, ended):
        transport = api_transport()
        reply = transport.request("GET", url)
        assert (len(reply.body), reply.oversize) == (MAX_ANSWER, True)
        assert ended.wait(LATE), "the server can still send"
        transport.close()


def test_a_connection_closed_while_idle_is_made_again(api: Served) -> None:
    sender = destination(api.endpoint).sender()
    sender.send(calls("idle1"))
    kept = sender._transport._socket
    assert kept is not None
    until(lambda: bool(select.select([kept], [], [], 0)[0]))  # the server closes after 0.5 s
    sender.send(calls("idle2"))
    sender.close()
    used = [one["connection"] for one in api.calls() if one["userId"].startswith("idle")]
    assert len(set(used)) == 2


def test_what_goes_over_the_wire() -> None:
    received: list[bytes] = []

    def answer(peer: socket.socket) -> None:
        with peer.makefile("rb") as file:
            received.extend(iter(file.readline, b"\r\n"))
            length = next(int(x.split()[1]) for x in received if x.startswith(b"Content-Length"))
            received.append(file.read(length))
        peer.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"success":true}')

    with conversation(answer) as (url, _):
        sender = destination(url, clock=lambda: datetime(2026, 10, 7, 6, 5, tzinfo=UTC)).sender()
        sender.send(calls("u1"))
        sender.close()
    *head, body = received
    lines = [line.decode().lower().strip() for line in head]
    assert lines[0] == "post /batch http/1.1"
    assert f"user-agent: {user_agent()}" in lines
    assert "content-encoding: gzip" in lines
    assert "accept-encoding: identity" in lines
    assert gzip.decompress(body) == (
        b'{"batch":[' + calls("u1")[0].bodies[0] + b'],"sentAt":"2026-10-07T06:05:00.000Z"}'
    )


# --- where there is nobody, or somebody else ---


def test_connection_refused() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = failure(f"http://127.0.0.1:{unused.getsockname()[1]}/v1")
    assert type(error) is RetryLater
    assert str(error) == "segment: 127.0.0.1 refused the connection"
    assert error.unsent


def test_host_name_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real one would be asked for over a network that may be slow."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = failure("http://segment.invalid/v1")
    assert type(error) is RetryLater
    assert str(error) == "segment: the host name segment.invalid cannot be resolved"
    assert error.unsent


@pytest.mark.parametrize(
    "endpoint",
    ["api.segment.io/v1", "ftp://127.0.0.1/v1", "http://[::1/v1", "http:///v1", "http://a..b/v1"],
)
def test_an_address_that_can_never_work(endpoint: str) -> None:
    error = failure(endpoint)
    assert type(error) is DestinationPaused
    assert "not a usable address" in str(error)
    assert error.hint


def test_not_http() -> None:
    with conversation(lambda peer: peer.sendall(b"220 mail.example.com ESMTP\r\n")) as (url, _):
        assert type(failure(url)) is RetryLater


@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{"success":true}\r\n',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{"success":true}\r\n',
        b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"success":true}',
        b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"success":"yes"}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n[true]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\xfe{}",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"[" * 60_000,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n{}{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
    ],
    ids=range(11),
)
def test_an_answer_that_is_not_segments(answer: bytes) -> None:
    with conversation(answering(answer)) as (url, _):
        assert type(failure(url)) is RetryLater


def test_early_refusal_of_a_body_that_is_still_being_sent() -> None:
    def refuse(peer: socket.socket) -> None:
        peer.recv(1024)
        peer.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(65_536):
            pass

    with conversation(refuse) as (url, _):
        transport = api_transport()
        assert transport.post(url, os.urandom(2_000_000), {}).status == 413
        transport.close()


def test_a_server_that_does_not_read() -> None:
    with conversation(lambda peer: time.sleep(DEADLINE * 2)) as (url, _):
        transport = api_transport()
        started = time.monotonic()
        with pytest.raises(RetryLater, match="no complete answer"):
            transport.post(url, os.urandom(30_000_000), {})
        assert time.monotonic() - started < LATE
        transport.close()


def test_a_proxy_is_used(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", api.url)
    sender = destination("http://segment.invalid/v1").sender()
    sender.send(calls("through-proxy"))
    sender.close()
    assert applied(api, "through-proxy")


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "nonsense://x", "http://[::1"])
def test_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(DestinationPaused, match="proxy") as raised:
        destination("http://127.0.0.1:1/v1").sender().send(calls("u1"))
    assert proxy not in str(raised.value)


# --- TLS ---


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-signed certificate for 127.0.0.1 in one file."""
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = "-subj /CN=tracking-api -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", str(file), "-out", f"{file}.crt"]
    subprocess.run([*request.split(), *names.split(), *files], check=True, capture_output=True)
    with file.open("a") as whole:
        whole.write(Path(f"{file}.crt").read_text())
    return file


@pytest.fixture(scope="module")
def tls_api(certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    log = tmp_path_factory.mktemp("tls-api") / "calls.log"
    with serve(log=log, write_key=KEY, hang=20, drip=DRIP, cert=certificate) as served:
        yield served


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=f"{certificate}.crt")


def test_a_certificate_that_is_not_trusted(tls_api: Served) -> None:
    error = failure(tls_api.endpoint)
    assert type(error) is DestinationPaused
    assert str(error) == (
        "segment: the certificate of 127.0.0.1 is not trusted (self-signed certificate)"
    )
    assert error.hint
    assert "SSL_CERT_FILE" in error.hint
    with pytest.raises(DestinationPaused, match="not trusted"):
        destination(tls_api.endpoint).reach()


def test_a_certificate_for_another_name(tls_api: Served, certificate: Path) -> None:
    endpoint = tls_api.endpoint.replace("127.0.0.1", "localhost")
    error = failure(endpoint, ssl_context=trusting(certificate))
    assert type(error) is DestinationPaused
    assert "Hostname mismatch" in str(error)


@pytest.mark.parametrize("fault", ["slow_head", "slow_body"])
def test_the_deadline_holds_in_tls(tls_api: Served, certificate: Path, fault: str) -> None:
    sender = destination(tls_api.endpoint, ssl_context=trusting(certificate)).sender()
    sender.send(calls("secure"))
    sender.close()
    assert applied(tls_api, "secure")
    error = failure(tls_api.faulty(fault), ssl_context=trusting(certificate))
    assert type(error) is RetryLater
    assert "no complete answer" in str(error)


def test_the_deadline_holds_on_a_reused_tls_connection(tls_api: Served, certificate: Path) -> None:
    transport = api_transport(ssl_context=trusting(certificate))
    for _ in range(2):
        assert transport.request("HEAD", tls_api.endpoint).status == 405
    started = time.monotonic()
    with pytest.raises(RetryLater, match="no complete answer"):
        post(transport, tls_api.faulty("slow_head"))
    assert time.monotonic() - started < LATE
    transport.close()


def test_the_deadline_holds_in_a_handshake_that_drips() -> None:
    def drip(peer: socket.socket) -> None:
        peer.sendall(b"\x16\x03\x03\x40\x00")
        for _ in range(100):
            time.sleep(0.1)
            peer.sendall(b"\x02")

    with conversation(drip) as (url, _):
        error = failure(url.replace("http:", "https:"))
    assert type(error) is RetryLater
    assert "no complete answer" in str(error) or "did not answer in time" in str(error)


def test_tls_with_a_server_that_has_none(api: Served) -> None:
    error = failure(api.endpoint.replace("http:", "https:"))
    assert type(error) is RetryLater
    assert "TLS with 127.0.0.1 failed" in str(error)


def test_certificates_to_trust_that_are_missing(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    from audience_sync.destinations.transport import trusted

    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    trusted.cache_clear()
    with pytest.raises(DestinationPaused, match="certificates to trust") as raised:
        destination(api.endpoint).sender().send(calls("u1"))
    assert raised.value.hint
    trusted.cache_clear()


# --- reach ---


def test_reach_of_another_endpoint_is_any_answer(api: Served) -> None:
    before = len(api.calls())
    destination(api.endpoint, write_key="wrong").reach()
    assert len(api.calls()) == before
    with pytest.raises(RetryLater, match="refused the connection"):
        destination("http://127.0.0.1:1/v1").reach()


def test_reach_of_segment_asks_for_the_key(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(segment.SETTINGS, "127.0.0.1", api.endpoint + "/projects/{}/settings")
    destination(api.endpoint, write_key=KEY).reach()
    with pytest.raises(CredentialsRefused, match="does not know this key") as raised:
        destination(api.endpoint, write_key="wrong-key").reach()
    assert raised.value.hint
    assert "wrong-key" not in str(raised.value)


def test_reach_when_segment_is_down(monkeypatch: pytest.MonkeyPatch, api: Served) -> None:
    with conversation(answering(b"HTTP/1.1 503 No\r\n\r\n")) as (url, _):
        monkeypatch.setitem(segment.SETTINGS, "127.0.0.1", url + "/{}")
        with pytest.raises(RetryLater, match="503"):
            destination(api.endpoint).reach()


# --- tools ---


def api_transport(**other: Any) -> Transport:
    return Transport(name="segment", headers={}, deadline=DEADLINE, clock=now, **other)


def post(transport: Transport, endpoint: str) -> None:
    from audience_sync.destinations.transport import basic

    body = b'{"batch":[' + calls("posted")[0].bodies[0] + b"]}"
    transport.post(endpoint + "/batch", body, {"Authorization": basic(KEY, "")})


def answering(answer: bytes) -> Callable[[socket.socket], None]:
    def respond(peer: socket.socket) -> None:
        peer.recv(65_536)
        peer.sendall(answer)

    return respond


def endless(peer: socket.socket) -> None:
    peer.recv(65_536)
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    while True:
        peer.sendall(b" " * 65_536)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LATE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextlib.contextmanager
def conversation(
    answer: Callable[[socket.socket], None],
) -> Iterator[tuple[str, threading.Event]]:
    """A server for one connection: its URL, and the event of its end."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def converse() -> None:
            peer, _ = listener.accept()
            with peer:
                with contextlib.suppress(OSError):  # the client went away
                    answer(peer)
                ended.set()

        thread = threading.Thread(target=converse, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", ended
        thread.join(LATE)
