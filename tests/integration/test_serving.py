"""The server that the status server and the sandbox have in common."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator

import pytest
from starlette.responses import PlainTextResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from audience_sync.serving.holder import holder
from audience_sync.serving.names import is_ours
from audience_sync.serving.server import Server
from tests.acceptance.program import free_port, wait_until


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(
        name="test",
        setting="--listen",
        listen=("127.0.0.1", 0),
        app=PlainTextResponse("ok"),
        protocol=H11Protocol,
    )
    made.start()
    yield made
    made.stop()
    assert not made.is_alive


def test_no_answer_waits_for_an_acknowledgement(server: Server) -> None:
    """Head and body are two writes, so with Nagle's algorithm each answer would take 40 ms."""
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        wait_until(lambda: server.transport(client.getsockname()) is not None)
        transport = server.transport(client.getsockname())
        assert transport is not None
        theirs = transport.get_extra_info("socket")
        assert theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_a_client_is_known_by_its_address(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        wait_until(lambda: server.transport(client.getsockname()) is not None)
        assert server.transport(("127.0.0.1", 1)) is None


def test_who_holds_a_port_is_named_as_far_as_it_is_known() -> None:
    here, there = socket.socketpair()
    # An address and a port that nobody else has by chance, once it is not ours any more.
    number, host = free_port(), "127.0.0.9"
    listening = socket.create_server((host, number))
    us = f"process {os.getpid()} ("
    with here, there:
        assert (holder(host, number) or "").startswith(us)
        assert (holder("0.0.0.0", number) or "").startswith(us)
        assert (holder("::", number) or "").startswith(us)
        assert holder("127.0.0.2", number) is None
        socket.send_fds(here, [b"!"], [listening.fileno()])
        listening.close()  # under way from us to us, it is in no process
        assert holder(host, number) == f"a process of {getpass.getuser()}"
    assert holder(host, number) is None


def test_a_port_that_is_held_on_every_address_of_ipv6() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as other:
        number = other.getsockname()[1]
        assert (holder("::1", number) or "").startswith("process ")
        assert (holder("127.0.0.1", number) or "").startswith("process ")


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1:8345", True),
        ("[::1]:8345", True),
        ("LOCALHOST", True),
        ("a.localhost.:1", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("named", True),
    ],
)
def test_names_that_may_mean_us(host: str, ours: bool) -> None:
    assert is_ours(host, {"named"}) is ours
