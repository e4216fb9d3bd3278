"""The status server with real sockets: what it answers, to whom, and what it bears."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

from audience_sync.destinations.transport import trusted
from audience_sync.domain.audience import AudienceKey
from audience_sync.errors import CannotListen
from audience_sync.serving.server import STOPS_WITHIN
from audience_sync.web import connection, routes
from audience_sync.web.server import StatusServer
from tests.acceptance.program import free_port, wait_until
from tests.fakes.facts import Told, started
from tests.fakes.wired import wired

TOKEN = "4fb2c19e07d86a35"
PATHS = ("/", "/healthz", "/readyz", "/metrics")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StatusServer]:
    """One for all tests that only ask."""
    folder = tmp_path_factory.mktemp("shared")
    app = wired(folder, f"sqlite:///{folder}/state.db")
    made = started(Told(app))
    yield made
    made.stop()
    app.close()


@pytest.fixture
def facts(tmp_path: Path) -> Iterator[Told]:
    app = wired(tmp_path, f"sqlite:///{tmp_path}/state.db")
    yield Told(app)
    app.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, the store answers in time. To be used before ``server``."""
    monkeypatch.setattr(routes, "PATIENCE", 30.0)


@pytest.fixture
def server(facts: Told) -> Iterator[StatusServer]:
    made = started(facts)
    yield made
    made.stop()


def ask(server: StatusServer, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    url = f"http://127.0.0.1:{server.port}{path}"
    return httpx.request(method, url, headers=headers, timeout=30, verify=trusted())


def connected(server: StatusServer, host: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((host, server.port), timeout=30)


def said(server: StatusServer, request: bytes) -> bytes:
    """The whole answer to a request that no library would send."""
    with connected(server) as client:
        client.sendall(request)
        answer = b""
        while piece := client.recv(65_536):
            answer += piece
        return answer


def serving() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "status"}


class TestAnswers:
    def test_all_paths(self, shared: StatusServer) -> None:
        found = {path: ask(shared, path) for path in PATHS}
        assert {answer.status_code for answer in found.values()} == {200}
        assert found["/healthz"].text == "ok\n"
        assert found["/readyz"].text == "ready\n"
        assert "audience_sync_build_info" in found["/metrics"].text
        assert set(PATHS) == {"/", *re.findall(r"^/\w+", found["/"].text, re.MULTILINE)}

    @pytest.mark.parametrize("path", [*PATHS, "/unknown"])
    def test_head_is_get_without_a_body(self, shared: StatusServer, path: str) -> None:
        whole, head = ask(shared, path), ask(shared, path, "HEAD")
        assert (head.status_code, head.content) == (whole.status_code, b"")
        assert head.headers["content-type"] == whole.headers["content-type"]

    @pytest.mark.parametrize(
        "path", ["/nope", "/metrics/", "/healthz/", "/favicon.ico", "//", "/%2e"]
    )
    def test_unknown(self, shared: StatusServer, path: str) -> None:
        assert ask(shared, path).status_code == 404

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
    @pytest.mark.parametrize("path", [*PATHS, "/unknown"])
    def test_only_to_be_read(self, shared: StatusServer, path: str, method: str) -> None:
        answer = ask(shared, path, method)
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD"

    def test_a_body_is_not_waited_for(self, shared: StatusServer) -> None:
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\nx"
        assert said(shared, head).startswith(b"HTTP/1.1 405 ")

    @pytest.mark.parametrize("path", [*PATHS, "/unknown"])
    @pytest.mark.parametrize("method", ["GET", "POST"])
    @pytest.mark.parametrize("host", ["localhost", "evil.example"])
    def test_headers_of_every_answer(
        self, shared: StatusServer, path: str, method: str, host: str
    ) -> None:
        found = ask(shared, path, method, host=host).headers
        assert "server" not in found
        assert found["x-content-type-options"] == "nosniff"
        assert found["cache-control"] == "no-store"
        assert found["content-security-policy"].startswith("default-src 'none'")
        assert found["content-type"].startswith("text/plain; ")
        assert "access-control-allow-origin" not in found

    def test_a_bug_shows_nothing(
        self, facts: Told, server: StatusServer, monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        def broken() -> bool:
            raise RuntimeError("person@private.example")

        monkeypatch.setattr(facts, "ticked", broken)
        answer = ask(server, "/healthz")
        assert (answer.status_code, answer.text) == (500, "Internal Server Error")
        assert answer.headers["x-content-type-options"] == "nosniff"
        wait_until(lambda: [r.name for r in caplog.records] == ["uvicorn.error"])
        assert ask(server, "/readyz").status_code == 200


class TestHealth:
    def test_while_the_main_loop_goes_round(self, facts: Told, server: StatusServer) -> None:
        facts.alive = False
        answer = ask(server, "/healthz")
        assert (answer.status_code, answer.text) == (
            503,
            "the main loop has stood still for 30 s\n",
        )
        facts.alive = True
        assert ask(server, "/healthz").status_code == 200

    def test_while_no_thread_is_stuck(self, facts: Told, server: StatusServer) -> None:
        facts.silent = True
        answer = ask(server, "/healthz")
        assert (answer.status_code, answer.text) == (503, "a thread is stuck\n")
        facts.silent = False
        assert ask(server, "/healthz").status_code == 200


class TestWho:
    @pytest.mark.parametrize("path", ["/", "/metrics", "/unknown"])
    def test_a_page_whose_name_was_bound_to_our_address_reads_nothing(
        self, shared: StatusServer, path: str
    ) -> None:
        answer = ask(shared, path, host=f"evil.example:{shared.port}")
        assert answer.status_code == 421
        assert "evil" not in answer.text
        assert "audience_sync" not in answer.text

    def test_probes_call_us_what_they_like(self, shared: StatusServer) -> None:
        for path in ("/healthz", "/readyz"):
            assert ask(shared, path, host="10-0-0-7.pods.example").status_code == 200

    def test_a_name_of_ours(self, facts: Told) -> None:
        server = started(facts, hosts=("sync.example.com",))
        assert ask(server, "/metrics", host="Sync.Example.com:80").status_code == 200
        assert ask(server, "/metrics", host="evil.example").status_code == 421
        server.stop()

    def test_a_request_without_a_name(self, shared: StatusServer) -> None:
        assert said(shared, b"GET /metrics HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 421 ")
        assert said(shared, b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")

    def test_two_names_are_none(self, shared: StatusServer) -> None:
        two = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
        assert said(shared, two).startswith(b"HTTP/1.1 400 ")

    def test_with_a_token(self, facts: Told) -> None:
        server = started(facts, token=TOKEN)
        for path in ("/", "/metrics", "/unknown"):
            answer = ask(server, path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer ")
            assert ask(server, path, authorization="Bearer 4fb2c19e07d86a36").status_code == 401
            assert TOKEN not in answer.text
        assert ask(server, "/metrics", authorization=f"Bearer {TOKEN}").status_code == 200
        assert {ask(server, path).status_code for path in ("/healthz", "/readyz")} == {200}
        server.stop()


class TestPorts:
    def test_a_port_that_is_taken(self, facts: Told, server: StatusServer) -> None:
        with pytest.raises(CannotListen) as caught:
            started(facts, listen=("127.0.0.1", server.port))
        process = f"process {os.getpid()} ({Path('/proc/self/comm').read_text().strip()})"
        assert str(caught.value) == (
            f"status.listen: port {server.port} of 127.0.0.1 is taken by {process}"
        )
        assert caught.value.hint == "end what listens there, or choose another port"
        assert caught.value.exit_code == 1
        assert ask(server, "/healthz").status_code == 200

    def test_an_address_of_another_machine(self, facts: Told) -> None:
        with pytest.raises(CannotListen, match=r"this machine has no address 192\.0\.2\.7"):
            started(facts, listen=("192.0.2.7", 8340))

    def test_stopped_before_it_listens(self, facts: Told) -> None:
        server = StatusServer(
            listen=("127.0.0.1", 0), token=None, hosts=(), facts=facts, clock=time.time
        )  # type: ignore[arg-type]
        server.stop()

    def test_the_same_port_at_once_after_a_stop(self, facts: Told) -> None:
        first = started(facts, listen=("127.0.0.1", free_port()))
        ask(first, "/metrics")
        first.stop()
        again = started(facts, listen=("127.0.0.1", first.port))
        assert again.port == first.port
        assert ask(again, "/healthz").status_code == 200
        again.stop()

    @pytest.mark.parametrize("host", ["0.0.0.0", "::"])
    def test_every_address(self, facts: Told, host: str) -> None:
        server = started(facts, listen=(host, 0), token=TOKEN)
        assert ask(server, "/healthz").status_code == 200
        server.stop()

    def test_ipv6(self, facts: Told) -> None:
        server = started(facts, listen=("::1", 0))
        assert httpx.get(f"http://[::1]:{server.port}/metrics").status_code == 200
        server.stop()


class TestClients:
    @pytest.mark.usefixtures("patient")
    def test_two_hundred_at_once(self, server: StatusServer) -> None:
        gate = threading.Barrier(200)

        def one(number: int) -> int:
            gate.wait(60)
            return ask(server, PATHS[number % len(PATHS)]).status_code

        with ThreadPoolExecutor(200) as threads:
            assert set(threads.map(one, range(200))) == {200}

    def test_one_that_says_nothing_or_little_is_cut_off(
        self, server: StatusServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection, "LONGEST", 0.5)
        with connected(server) as silent, connected(server) as slow:
            slow.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: ")
            with contextlib.suppress(OSError):
                for _ in range(1000):
                    slow.sendall(b"a")
                    time.sleep(0.01)
                raise AssertionError("it may say as little as it likes")
            with contextlib.suppress(ConnectionResetError):
                assert silent.recv(1) == b""
        assert ask(server, "/healthz").status_code == 200

    def test_a_crowd_that_says_nothing_takes_no_answer_from_a_probe(
        self, server: StatusServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection, "MOST", 10)
        crowd = [connected(server) for _ in range(100)]
        for _ in range(5):
            assert ask(server, "/healthz").status_code == 200
        ended = 0
        for client in crowd:
            client.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                assert client.recv(1) == b""
                ended += 1
            client.close()
        assert len(crowd) - ended <= 10

    def test_an_endless_head(self, server: StatusServer) -> None:
        head = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1_000_000
        with contextlib.suppress(OSError):
            assert said(server, head).startswith(b"HTTP/1.1 400 ")
        assert ask(server, "/healthz").status_code == 200

    @pytest.mark.parametrize(
        "bad", [b"\r\n\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"\0" * 99]
    )
    def test_what_is_not_http_leaves_no_line_in_the_log(
        self, server: StatusServer, bad: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        with connected(server) as client:
            client.sendall(bad + b"\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            client.recv(1000)
        ask(server, "/metrics")
        assert ask(server, "/healthz").status_code == 200
        assert [record.getMessage() for record in caplog.records] == []

    def test_one_request_for_each_connection(self, server: StatusServer) -> None:
        request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert said(server, request * 3).count(b"HTTP/1.1 200 ") == 1


class TestStopping:
    def test_soon_whatever_the_clients_do(self, facts: Told) -> None:
        before = serving()
        host = "127.0.0.9"  # where nobody else listens, when we do not any more
        server = started(facts, listen=(host, 0))
        silent, slow, deaf = (connected(server, host) for _ in range(3))
        slow.sendall(b"GET /metrics HTTP/1.1\r\nHost: loc")
        deaf.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with httpx.Client() as kept:
            kept.get(f"http://{host}:{server.port}/healthz")
            begun = time.monotonic()
            server.stop()
            assert time.monotonic() - begun < STOPS_WITHIN
        assert serving() == before
        with pytest.raises(ConnectionRefusedError):
            connected(server, host)
        for client in (silent, slow, deaf):
            client.close()
        server.stop()

    def test_though_a_client_does_not_read_its_answer(self, facts: Told) -> None:
        for number in range(60_000):  # more than the sockets between us hold
            facts.counters.captured(AudienceKey(f"audience_{number:060}"), "committed")
        before = serving()
        server = started(facts)
        with connected(server) as deaf:
            deaf.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert deaf.recv(10) == b"HTTP/1.1 2"
            server.stop()
            assert serving() == before
            deaf.settimeout(5)
            with contextlib.suppress(ConnectionResetError):
                while deaf.recv(1_000_000):
                    pass

    def test_its_threads_take_no_signal(
        self, facts: Told, server: StatusServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not even when whoever starts it blocks none."""
        masks: list[set[int]] = []

        def kept() -> None:
            masks.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, [])))

        monkeypatch.setattr(facts, "app", kept)  # asked by the threads that read
        ask(server, "/readyz")
        ask(server, "/metrics")
        monkeypatch.setattr(facts, "ticked", lambda: kept() is None)  # by the one that answers
        ask(server, "/healthz")
        assert len(masks) == 3
        for mask in masks:
            assert {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} <= mask
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])

    def test_says_where_it_listens(self, facts: Told, capsys: pytest.CaptureFixture[str]) -> None:
        server = started(facts, token=TOKEN)
        server.stop()
        shown = "".join(capsys.readouterr())
        assert f"port={server.port}" in re.sub(r"\x1b\[[0-9;]*m", "", shown)
        assert TOKEN not in shown


class TestForms:
    @pytest.mark.parametrize(
        ("accept", "content_type"),
        [
            ("", "text/plain; version=0.0.4; charset=utf-8"),
            ("text/html", "text/plain; version=0.0.4; charset=utf-8"),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.1",
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            ),
        ],
    )
    def test_in_the_form_that_is_asked_for(
        self, facts: Told, server: StatusServer, accept: str, content_type: str
    ) -> None:
        facts.counters.captured(AudienceKey("vip"), "held")
        answer = ask(server, "/metrics", accept=accept)
        assert answer.headers["content-type"].startswith(content_type)
        parse = parser.text_string_to_metric_families
        if "openmetrics" in content_type:
            parse = openmetrics.text_string_to_metric_families
        assert {"audience_sync_build_info", "audience_sync_captures"} <= {
            family.name for family in parse(answer.text)
        }

    @pytest.mark.parametrize(
        "accept",
        [
            "application/openmetrics-text;version=x", "application/openmetrics-text;version=",
            "application/openmetrics-text;version=1.0.0.0.0", "text/plain;version=1e9",
            "text/plain;version=1.0.0;escaping=x", ";;;,,,===", "\xff",
            "application/openmetrics-text;version=99.0.0;escaping=evil",
        ],
    )  # fmt: skip
    def test_whatever_is_asked_for(self, shared: StatusServer, accept: str) -> None:
        url = f"http://127.0.0.1:{shared.port}/metrics"
        answer = httpx.get(url, headers={"accept": accept.encode("latin-1")})
        assert answer.status_code == 200
        assert "audience_sync_build_info" in answer.text
        assert "evil" not in answer.headers["content-type"]


def test_uvicorn_logs_as_we_do() -> None:
    for name in ("uvicorn", "uvicorn.error"):
        assert logging.getLogger(name).handlers == []
