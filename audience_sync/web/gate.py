"""Around everything that is served: who may pass, and headers that keep browsers out."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from audience_sync.web.access import Access

HEADERS = {
    "cache-control": "no-store",
    "connection": "close",  # see ``connection.py``
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Gate:
    """An ASGI application in front of another one."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        refusal = self._access.refusal(scope["method"], scope["path"], headers)
        if refusal is None:
            await self._app(scope, receive, guarded)
        else:
            answer = PlainTextResponse(f"{refusal.text}\n", refusal.status, refusal.headers)
            await answer(scope, receive, guarded)
