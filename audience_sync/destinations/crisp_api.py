"""Crisp's REST API v1 on the wire (docs.crisp.chat: authentication, rate limits, REST reference).

What its answers mean is decided here, once. An answer's ``reason`` may hold a person's e-mail, so
of a body only words that Crisp itself chose go into a text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal
from urllib.parse import quote

import orjson

from audience_sync.destinations.credential import Credential
from audience_sync.destinations.transport import Reply, Transport, basic
from audience_sync.domain.quota import next_day
from audience_sync.domain.retry import Answer, classify
from audience_sync.errors import (
    BadCalls,
    CredentialsRefused,
    DestinationPaused,
    QuotaUsed,
    RetryLater,
)
from audience_sync.pipeline.ports.sending import MaySend

Tier = Literal["plugin", "website", "user"]
Method = Literal["GET", "HEAD", "POST", "PATCH"]

MAX_PAGE = 4 * 1024 * 1024
"""Bytes of a page of 50 people, each of which may have a long profile."""

REASON = re.compile(r"[a-z][a-z_]{0,59}\Z")
"""A reason of Crisp's own, such as ``invalid_data``."""

CHECK_KEY = "check `api_key` (identifier:key) and `tier`; the key needs to read and write people"
CHECK_WEBSITE = (
    'check `website_id`, and with `tier = "plugin"` that the plugin is installed on that website'
)
CHECK_ENDPOINT = "check `endpoint`: https://api.crisp.chat/v1"


class Outcome(StrEnum):
    DONE = "done"
    MISSING = "missing"
    """404: no such person, no such website, or the plugin is not subscribed to it."""
    TAKEN = "taken"
    """409: somebody has this e-mail."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """``data``: what Crisp answered, whatever its type; never to be shown."""

    outcome: Outcome
    data: Any = field(default=None, repr=False)

    def text(self, key: str) -> str:
        """The string ``data`` has under ``key``; empty if it has none."""
        value = self.data.get(key) if isinstance(self.data, Mapping) else None
        return value if isinstance(value, str) else ""


class CrispApi:
    """One worker's connection. Not shared between threads."""

    def __init__(
        self,
        *,
        name: str,
        endpoint: str,
        tier: Tier,
        credential: Credential,
        transport: Transport,
        clock: Callable[[], datetime],
    ) -> None:
        self.name = name
        self._endpoint = endpoint.rstrip("/")
        self._tier = tier
        self._credential = credential
        self._transport = transport
        self._clock = clock

    def ask(
        self,
        method: Method,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        may_send: MaySend,
    ) -> Answered:
        """One request. ``path`` is encoded (see ``person``), and begins after ``/v1/``.

        Raises:
            RetryLater: no proper answer, too many requests, or a key that was just replaced.
            BadCalls: refused for its content.
            QuotaUsed: until the day turns.
            DestinationPaused, CredentialsRefused: a person must look; also a 404 on a POST, which
                says that the website is not there, or not ours.
        """
        may_send(1)
        key = self._credential.value
        headers = {"Authorization": _authorization(key), "X-Crisp-Tier": self._tier}
        content = b""
        if body is not None:
            content = orjson.dumps(body)
            headers["Content-Type"] = "application/json"
        url = f"{self._endpoint}/{path}"
        reply = self._transport.request(method, url, body=content, headers=headers, most=MAX_PAGE)
        return self._judged(method, reply, key)

    def close(self) -> None:
        self._transport.close()

    def _judged(self, method: Method, reply: Reply, key: str) -> Answered:
        status = reply.status
        if status == 404 and method != "POST":
            return Answered(outcome=Outcome.MISSING)
        if status == 409:
            return Answered(outcome=Outcome.TAKEN)
        if classify(status) is Answer.OK:
            return self._resolved(method, reply)
        raise self._refused(status, reply, key)

    def _resolved(self, method: Method, reply: Reply) -> Answered:
        if method == "HEAD":
            return Answered(outcome=Outcome.DONE)
        answer = _object(reply)
        if answer is None or answer.get("error") is not False:
            raise RetryLater(
                f"{self.name}: answered {reply.status}, but not as Crisp does "
                "(a proxy or a captive portal?)"
            )
        return Answered(outcome=Outcome.DONE, data=answer.get("data"))

    def _refused(self, status: int, reply: Reply, key: str) -> Exception:
        name = self.name
        if status == 423:
            return QuotaUsed(
                f"{name}: Crisp says that the daily quota is used (423)",
                until=next_day(self._clock()),
            )
        if status == 402:
            return DestinationPaused(
                f"{name}: Crisp's plan does not include this (402)",
                hint="upgrade the plan of the website, or use another key",
            )
        if status == 404:
            return DestinationPaused(
                f"{name}: the website is not there, or not ours (404)", hint=CHECK_WEBSITE
            )
        match classify(status):
            case Answer.SLOW_DOWN:
                text = f"{name}: too many requests ({status})"
                return RetryLater(text, after=reply.retry_after, slow_down=True)
            case Answer.RETRY:
                return RetryLater(f"{name}: unavailable ({status})", after=reply.retry_after)
            case Answer.TOO_LARGE_OR_BAD:
                return BadCalls(f"{name}: request refused ({status}{_reason(reply)})")
            case Answer.CREDENTIALS if self._credential.renewed(key):
                return RetryLater(f"{name}: key refused ({status}); there is a new one")
            case Answer.CREDENTIALS:
                return CredentialsRefused(
                    f"{name}: key refused ({status}{_reason(reply)})", hint=CHECK_KEY
                )
        return DestinationPaused(f"{name}: unexpected answer {status}", hint=CHECK_ENDPOINT)


def encoded(part: str) -> str:
    """A people_id, an e-mail or a website as one segment of a path."""
    return quote(part, safe="")


def _authorization(key: str) -> str:
    identifier, _, secret = key.partition(":")
    return basic(identifier, secret)


def _object(reply: Reply) -> dict[str, Any] | None:
    if reply.oversize:
        return None
    try:
        answer = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return None
    return answer if isinstance(answer, dict) else None


def _reason(reply: Reply) -> str:
    reason = (_object(reply) or {}).get("reason")
    return f", {reason}" if isinstance(reason, str) and REASON.match(reason) else ""
