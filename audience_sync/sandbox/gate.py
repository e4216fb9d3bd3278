"""Around what is for people and tests: browsers of others are kept out, and other machines."""

from __future__ import annotations

from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from audience_sync.serving.names import is_ours

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
CONTROL = "/sandbox/"


class Gate:
    """An ASGI application in front of another one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refused = refusal(scope)
        if refused is None:
            await self._app(scope, receive, guarded)
        else:
            status, text = refused
            await PlainTextResponse(f"{text}\n", status)(scope, receive, guarded)


def refusal(scope: Scope) -> tuple[int, str] | None:
    """A status and why; nothing of the request is in it."""
    headers = Headers(scope=scope)
    if not is_ours(headers.get("host", "")):
        return 421, "not known by that name: use the address, or localhost"
    if scope["method"] == "POST" and ("origin" in headers or "sec-fetch-site" in headers):
        return 403, "not for pages in a browser"
    if scope["path"].startswith(CONTROL) and not _is_near(scope):
        return 403, "for this machine only"
    return None


def _is_near(scope: Scope) -> bool:
    client = scope.get("client")
    try:
        return client is not None and ip_address(client[0]).is_loopback
    except ValueError:
        return False
