"""The sandbox as Segment: what it answers, over real sockets."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.sandbox import Sandbox, sandbox


@pytest.fixture
def segment() -> Iterator[Sandbox]:
    with sandbox() as made:
        yield made


def users(made: Sandbox) -> dict[str, Any]:
    return {u["user_id"]: u for u in made.ask("/sandbox/people.json").json()["segment"]}


def identify(user_id: str = "u1", **traits: Any) -> dict[str, Any]:
    return {"type": "identify", "userId": user_id, "traits": traits}


def test_one_call_or_many(segment: Sandbox) -> None:
    answer = segment.segment("identify", {"userId": "u1", "traits": {"email": "ana@example.com"}})
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    content = {"userId": "u1", "event": "Bought", "properties": {"revenue": 39.95}}
    assert segment.segment("track", content).status_code == 200
    batch = [identify("u1", vip=True), identify("u2", vip=False), {**content, "type": "track"}]
    assert segment.segment("batch", {"batch": batch, "sentAt": "2026-02-01"}).status_code == 200
    found = users(segment)
    assert found["u1"]["traits"] == {"email": "ana@example.com", "vip": True}
    assert found["u2"]["traits"] == {"vip": False}
    assert [e["event"] for e in found["u1"]["events"]] == ["Bought", "Bought"]


def test_gzip(segment: Sandbox) -> None:
    packed = gzip.compress(json.dumps({"batch": [identify(vip=True)]}).encode())
    headers = {"Content-Encoding": "gzip"}

    def status(body: bytes) -> int:
        return segment.segment("batch", json=None, content=body, headers=headers).status_code

    assert status(packed) == 200
    assert users(segment)["u1"]["traits"] == {"vip": True}
    assert [status(body) for body in (packed[:-9], b"{}", b"")] == [400, 400, 400]
    assert status(gzip.compress(b" " * 50_000_000)) == 400
    assert "more than 500,000 bytes" in segment.calls()[-1]["reason"]


@pytest.mark.parametrize("key", [None, ("wrong", ""), ("sandbox-write-key", "more")])
def test_another_key_is_refused(segment: Sandbox, key: Any) -> None:
    answer = segment.segment("batch", {"batch": [identify(vip=True)]}, auth=key)
    assert answer.status_code == 401
    assert answer.json()["success"] is False
    assert users(segment) == {}


def test_a_repeated_message_id_is_taken_once(segment: Sandbox) -> None:
    first = {**identify(vip=True), "messageId": "m1"}
    second = {**identify(vip=False), "messageId": "m1"}
    for call in (first, second):
        assert segment.segment("batch", {"batch": [call]}).status_code == 200
    assert users(segment)["u1"]["traits"] == {"vip": True}
    assert "1 repeated" in segment.calls()[-1]["reason"]


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ({**identify(), "messageId": "m" * 101}, "messageId of more than 100"),
        ({**identify(), "messageId": 7}, "messageId"),
        (identify(**{f"t{n}": n for n in range(300)}), "300 traits (fewer than 300 are taken)"),
        (identify(a="x" * 32_768), "limit 32,768"),
        ({"type": "identify", "traits": {}}, "without userId"),
        ({"type": "identify", "userId": "", "traits": {}}, "without userId"),
        ({"type": "identify", "userId": "u", "traits": []}, "traits is not an object"),
        ({"type": "track", "userId": "u"}, "without event"),
        ({"type": "alias", "userId": "u"}, "neither identify nor track"),
        ({"userId": "u"}, "neither identify nor track"),
    ],
)
def test_a_call_that_breaks_a_limit_is_refused(
    segment: Sandbox, call: dict[str, Any], reason: str
) -> None:
    answer = segment.segment("batch", {"batch": [identify("u2", vip=True), call]})
    assert answer.status_code == 400
    assert reason in answer.json()["message"]
    assert users(segment) == {}


def test_what_just_fits_is_taken(segment: Sandbox) -> None:
    whole = {**identify(**{f"t{n}": n for n in range(299)}), "messageId": "m" * 100}
    big = identify("u2", a="")
    big["traits"]["a"] = "x" * (32 * 1024 - len(json.dumps(big, separators=(",", ":"))))
    assert segment.segment("batch", {"batch": [whole, big]}).status_code == 200
    assert set(users(segment)) == {"u1", "u2"}


def test_a_batch_is_bounded(segment: Sandbox) -> None:
    def batch(number: int, size: int = 0) -> int:
        calls = [identify(f"u{n}", a="x" * size) for n in range(number)]
        return segment.segment("batch", {"batch": calls}).status_code

    assert [batch(2_501), batch(20, 30_000)] == [400, 400]
    assert users(segment) == {}
    assert [batch(2_500), batch(16, 30_000)] == [200, 200]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"batch": 7}', b'{"batch": [7]}', b"\xff"])
def test_what_is_no_batch_is_refused(segment: Sandbox, body: bytes) -> None:
    assert segment.segment("batch", json=None, content=body).status_code == 400


def test_lenient_as_segment_itself() -> None:
    with sandbox(lenient=True) as segment:
        calls = [identify(f"u{n}") for n in range(2_501)]
        answers = [
            segment.segment("batch", {"batch": [identify()]}, auth=("wrong", "")),
            segment.segment("batch", {"batch": calls}),
            segment.segment("batch", {"batch": [{"type": "identify", "traits": {"vip": True}}]}),
        ]
        assert [(a.status_code, a.json()) for a in answers] == [(200, {"success": True})] * 3
        assert users(segment) == {}


def test_a_rate_is_kept() -> None:
    with sandbox(segment_rate=2.0) as segment:
        batch = {"batch": [identify(f"u{n}") for n in range(500)]}
        assert segment.segment("batch", batch).status_code == 200
        answer = segment.segment("batch", batch)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 100
        assert answer.headers["x-ratelimit-reset"] == answer.headers["retry-after"]


def test_what_there_is_not(segment: Sandbox) -> None:
    statuses = [
        segment.ask("/v1/batch").status_code,
        segment.ask("/v1/batch", "HEAD").status_code,
        segment.ask("/v1/import", "POST").status_code,
        segment.ask("/v1").status_code,
        segment.ask("/v1/projects/sandbox-write-key/settings").status_code,
        segment.ask("/v1/projects/wrong/settings").status_code,
    ]
    assert statuses == [405, 405, 404, 404, 200, 404]
