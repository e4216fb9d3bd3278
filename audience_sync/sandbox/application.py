"""The sandbox as an ASGI application: both APIs below ``/v1``, and what is for people and tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from audience_sync.sandbox.asked import Answer, Asked, query_of, segments_of
from audience_sync.sandbox.exchange import LARGEST_BODY, exchange
from audience_sync.sandbox.faults import Fault
from audience_sync.sandbox.state import State
from audience_sync.serving.server import Server

PORTAL = b"<!doctype html><title>Welcome to our Wi-Fi</title><p>Please accept the terms."


class Application:
    """``inside``: everything but the APIs."""

    def __init__(self, state: State, inside: ASGIApp) -> None:
        self._state = state
        self._inside = inside
        self._transport: Callable[[object], asyncio.Transport | None] = _unknown

    def served_by(self, server: Server) -> None:
        """Its connections are needed for answers that no server would give."""
        self._transport = server.transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        segments = segments_of(scope["raw_path"])
        if segments[:1] != ("v1",):
            await self._inside(scope, receive, send)
            return
        body = await whole_body(receive)
        if body is None:
            return
        made = exchange(self._state, asked_by(scope, segments, body))
        if made.fault is None:
            await respond(made.answer, scope, receive, send)
        else:
            await self._fail(made.fault, made.answer, scope, receive, send)

    async def _fail(
        self, fault: Fault, answer: Answer, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if fault.name == "html":
            page = Answer(status=200, reason="", body=PORTAL, headers={"content-type": "text/html"})
            await respond(page, scope, receive, send)
        elif fault.name == "slow":
            await self._drip(answer, send)
        else:
            await self._break(fault, answer, scope, receive)

    async def _drip(self, answer: Answer, send: Send) -> None:
        headers = {**answer.headers, "content-length": str(len(answer.body))}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        for at in range(len(answer.body)):
            await asyncio.sleep(self._state.options.drip)
            piece = answer.body[at : at + 1]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _break(self, fault: Fault, answer: Answer, scope: Scope, receive: Receive) -> None:
        transport = self._transport(scope["client"])
        if fault.name.startswith("timeout"):
            gone = asyncio.ensure_future(receive())
            await asyncio.wait([gone], timeout=self._state.options.hang)
            gone.cancel()
        if transport is None:
            return
        if fault.name == "truncated":
            head = (
                f"HTTP/1.1 {answer.status} OK\r\ncontent-length: {len(answer.body) + 100}\r\n\r\n"
            )
            transport.write(head.encode() + answer.body[: len(answer.body) // 2])
            transport.close()
        else:
            transport.abort()
        while (await receive())["type"] != "http.disconnect":
            pass


def _unknown(_client: object) -> None:
    return None


def asked_by(scope: Scope, segments: tuple[str, ...], body: bytes) -> Asked:
    query = scope["query_string"]
    path = scope["raw_path"] + (b"?" + query if query else b"")
    return Asked(
        method=scope["method"],
        path=path.decode("ascii", "replace"),
        segments=segments,
        query=query_of(query),
        headers=dict(Headers(scope=scope)),
        body=body,
    )


async def whole_body(receive: Receive) -> bytes | None:
    """``None``: the client has gone. Not much more than ``LARGEST_BODY``."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body") or len(body) > LARGEST_BODY:
            return bytes(body)


async def respond(answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
    body = b"" if scope["method"] == "HEAD" else answer.body
    await Response(body, answer.status, dict(answer.headers))(scope, receive, send)
