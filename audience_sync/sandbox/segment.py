"""Segment's HTTP Tracking API, with its documented limits (segmentio/segment-docs).

Where Segment answers 200 and drops what it got, so does this with ``lenient``; else it refuses,
so that who tries a set-up learns of it.
"""

from __future__ import annotations

import hmac
import zlib
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import orjson

from audience_sync.sandbox.allowance import Rate
from audience_sync.sandbox.asked import JSON, Answer, Asked, Refused, encoded
from audience_sync.sandbox.options import Options
from audience_sync.sandbox.users import Users, user_of

MAX_BODY = 500_000
"""Of a batch, uncompressed; 500 KB read in the strict way."""

MAX_CALL = 32 * 1024
MAX_CALLS = 2_500
MAX_TRAITS = 299
MAX_MESSAGE_ID = 100
REMEMBERED_IDS = 500_000
"""By which repeated calls are noticed; Segment remembers about 24 hours."""

TYPES = {"batch": None, "identify": "identify", "track": "track"}
CONTENT = {"identify": "traits", "track": "properties"}


class Segment:
    def __init__(self, options: Options, users: Users, elapsed: Callable[[], float]) -> None:
        self._options = options
        self._users = users
        self._rate = Rate(options.segment_rate, elapsed)
        self._seen: OrderedDict[str, None] = OrderedDict()
        expected = b64encode(f"{options.write_key}:".encode()).decode()
        self._authorization = f"Basic {expected}"

    def route(self, asked: Asked) -> str:
        known = len(asked.segments) == 2 and asked.segments[1] in TYPES
        if known and asked.method == "POST":
            return f"POST {asked.segments[1]}"
        return "GET projects/{key}/settings" if _is_settings(asked) else ""

    def refusal(self, asked: Asked) -> Answer | None:
        """Why it is not let in; ``lenient`` lets everybody in, and nothing comes of it."""
        is_call = self.route(asked).startswith("POST")
        if not is_call or self._is_known(asked) or self._options.lenient:
            return None
        return refusal(401, "not the write key of this sandbox")

    def answer(self, asked: Asked) -> Answer:
        try:
            return self._answer(asked)
        except Refused as refused:
            return refused.answer

    def _answer(self, asked: Asked) -> Answer:
        if _is_settings(asked):
            known = asked.segments[2] == self._options.write_key
            return success("", {}) if known else refusal(404, "no such write key")
        if not self.route(asked):
            known = len(asked.segments) == 2 and asked.segments[1] in TYPES
            return refusal(405, "only POST") if known else refusal(404, "no such route")
        calls = self._calls(asked)
        wait = self._rate.take(len(calls))
        if wait:
            return slow_down(wait)
        if not self._is_known(asked):
            return success(f"vanished: {len(calls):,} calls, unknown write key")
        accepted = [call for call in calls if self._is_new(call)]
        for call in accepted:
            self._users.take(call)
        repeated = len(calls) - len(accepted)
        told = f"{len(accepted):,} calls" + (f", {repeated:,} repeated" if repeated else "")
        return success(told)

    def _is_known(self, asked: Asked) -> bool:
        given = asked.headers.get("authorization", "")
        return hmac.compare_digest(given.encode(), self._authorization.encode())

    def _is_new(self, call: dict[str, Any]) -> bool:
        message_id = call.get("messageId")
        if message_id is None:
            return True
        if message_id in self._seen:
            return False
        self._seen[message_id] = None
        if len(self._seen) > REMEMBERED_IDS:
            self._seen.popitem(last=False)
        return True

    def _calls(self, asked: Asked) -> list[dict[str, Any]]:
        content = _json(unpacked(asked))
        kind = TYPES[asked.segments[1]]
        if kind is not None:
            return [checked({**content, "type": kind})]
        calls = content.get("batch")
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise Refused(refusal(400, "batch is not a list of calls"))
        if len(calls) > MAX_CALLS:
            if self._options.lenient:
                return []  # Segment answers 200, and they vanish
            raise Refused(refusal(400, f"{len(calls):,} calls in a batch (limit {MAX_CALLS:,})"))
        if self._options.lenient:
            calls = [call for call in calls if user_of(call)]  # the same
        return [checked(call) for call in calls]


def checked(call: dict[str, Any]) -> dict[str, Any]:
    """
    Raises:
        Refused: Segment would not take it, or would drop it silently.
    """
    kind = call.get("type")
    if kind not in CONTENT:
        raise Refused(refusal(400, "a call that is neither identify nor track"))
    size = len(encoded(call))
    if size > MAX_CALL:
        raise Refused(refusal(400, f"a call of {size:,} bytes (limit {MAX_CALL:,})"))
    if user_of(call) is None:
        raise Refused(refusal(400, "a call without userId and anonymousId"))
    content = call.get(CONTENT[kind], {})
    if not isinstance(content, dict):
        raise Refused(refusal(400, f"{CONTENT[kind]} is not an object"))
    if kind == "identify" and len(content) > MAX_TRAITS:
        raise Refused(refusal(400, f"{len(content):,} traits (fewer than 300 are taken)"))
    if kind == "track" and not (isinstance(call.get("event"), str) and call["event"]):
        raise Refused(refusal(400, "a Track call without event"))
    message_id = call.get("messageId", "")
    if not isinstance(message_id, str) or len(message_id) > MAX_MESSAGE_ID:
        raise Refused(refusal(400, f"a messageId of more than {MAX_MESSAGE_ID} characters"))
    return call


def unpacked(asked: Asked) -> bytes:
    """At most ``MAX_BODY``, whatever it would unpack to."""
    body = asked.body
    if asked.headers.get("content-encoding", "").lower() == "gzip":
        unpack = zlib.decompressobj(wbits=31)
        try:
            body = unpack.decompress(body, MAX_BODY + 1)
        except zlib.error:
            raise Refused(refusal(400, "the body is not gzip")) from None
        if len(body) <= MAX_BODY and not unpack.eof:
            raise Refused(refusal(400, "the gzip body is cut"))
    if len(body) > MAX_BODY:
        raise Refused(refusal(400, f"a body of more than {MAX_BODY:,} bytes"))
    return body


def success(told: str, data: Any = None) -> Answer:
    body = encoded({"success": True} if data is None else data)
    return Answer(status=200, reason=told, body=body, headers={"content-type": JSON})


def refusal(status: int, reason: str) -> Answer:
    body = encoded({"success": False, "message": reason})
    return Answer(status=status, reason=reason, body=body, headers={"content-type": JSON})


def slow_down(wait: float) -> Answer:
    """Both headers are in seconds."""
    seconds = str(int(wait) + 1)
    body = encoded({"success": False, "message": "too many requests"})
    headers = {"content-type": JSON, "retry-after": seconds, "x-ratelimit-reset": seconds}
    return Answer(status=429, reason="too many events a second", body=body, headers=headers)


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Refused(refusal(400, "the body is not JSON")) from None
    if not isinstance(value, dict):
        raise Refused(refusal(400, "the body is not an object"))
    return value


def _is_settings(asked: Asked) -> bool:
    """As cdn.segment.com has it, where Segment's libraries look a write key up."""
    segments = asked.segments
    shape = len(segments) == 4 and (segments[1], segments[3]) == ("projects", "settings")
    return asked.method == "GET" and shape
