"""Who may ask the status server what."""

from __future__ import annotations

import pytest

from audience_sync.web.access import Access

TOKEN = "4fb2c19e07d86a35"
OPEN = Access(token=None, hosts=frozenset({"sync.example.com"}))
CLOSED = Access(token=TOKEN, hosts=frozenset())


def status(access: Access, path: str = "/metrics", method: str = "GET", **headers: str) -> int:
    refusal = access.refusal(method, path, {"host": "127.0.0.1:8340"} | headers)
    return refusal.status if refusal else 200


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost:8340", "LOCALHOST", "localhost.", "daemon.localhost",
        "127.0.0.1", "127.0.0.1:8340", "192.0.2.7:80", "[::1]", "[::1]:8340", "[fe80::1]:1",
        "sync.example.com", "Sync.Example.COM:443", "sync.example.com.",
    ],
)  # fmt: skip
def test_names_that_no_stranger_can_take(host: str) -> None:
    assert status(OPEN, host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "", ":8340", "evil.example", "evil.example:8340", "localhost.evil.example",
        "127.0.0.1.evil.example", "evillocalhost", "127.1", "0x7f000001", "2130706433",
        "[evil.example]", "127.0.0.1:80:80", "127.0.0.1@evil.example", "evil.example/localhost",
        "sync.example.com.evil.example", "xsync.example.com", " localhost", "localhost,evil",
    ],
)  # fmt: skip
def test_other_names_are_refused(host: str) -> None:
    refusal = OPEN.refusal("GET", "/metrics", {"host": host})
    assert refusal is not None
    assert (refusal.status, refusal.text) == (
        421,
        "not known by that name: add it to [status] hosts",
    )
    assert status(OPEN, "/", host=host) == 421
    assert status(OPEN, "/unknown", host=host) == 421


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_whoever_restarts_us_may_call_us_what_it_likes(path: str) -> None:
    assert status(CLOSED, path, host="10-0-0-7.pods.cluster") == 200
    assert status(CLOSED, path, "HEAD", host="") == 200
    assert status(CLOSED, path, "POST", host="") == 405


@pytest.mark.parametrize(
    "path", ["/healthz/", "/healthzz", "//healthz", "/Healthz", "/x/healthz", "/healthz/../metrics"]
)
def test_only_those_two_paths_are_open(path: str) -> None:
    assert status(CLOSED, path) == 401


@pytest.mark.parametrize(
    "sent",
    [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN} "],
)
def test_the_token(sent: str) -> None:
    assert status(CLOSED, authorization=sent) == 200


@pytest.mark.parametrize(
    "sent",
    [
        "", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN} {TOKEN}", f"Bearer x {TOKEN}", f"Bearer\t{TOKEN}",
        "Bearer té", "Bearer \0",
    ],
)  # fmt: skip
def test_anything_else_is_none(sent: str) -> None:
    refusal = CLOSED.refusal("GET", "/metrics", {"host": "localhost", "authorization": sent})
    assert refusal is not None
    assert refusal.status == 401
    assert refusal.headers == {"www-authenticate": 'Bearer realm="audience-sync"'}
    assert TOKEN not in refusal.text


def test_without_a_token_none_is_asked_for() -> None:
    assert status(OPEN) == 200
    assert status(OPEN, authorization="Bearer anything") == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "BREW"])
def test_only_to_be_read(method: str) -> None:
    refusal = OPEN.refusal(method, "/metrics", {"host": "evil.example"})
    assert refusal is not None
    assert (refusal.status, refusal.headers) == (405, {"allow": "GET, HEAD"})


def test_the_token_is_not_shown() -> None:
    assert TOKEN not in repr(CLOSED)
