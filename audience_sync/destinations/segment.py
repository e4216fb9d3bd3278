"""Segment's HTTP Tracking API, ``POST /v1/batch`` (segmentio/segment-docs, HTTP Tracking API).

A 200 means "accepted by the API", nothing more: a batch over 2,500 events or an unknown write
key gets one too, and vanishes. So every limit is checked here, before anything is sent.
"""

from __future__ import annotations

import gzip
import ssl
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

from audience_sync.destinations.calls import call_by_hand, calls_per_change, member_calls
from audience_sync.destinations.credential import Credential, same
from audience_sync.destinations.transport import Reply, Transport, basic
from audience_sync.domain.audience import Kind, Tell
from audience_sync.domain.by_hand import ByHand
from audience_sync.domain.identify import iso
from audience_sync.domain.retry import Answer, classify, retry_after
from audience_sync.domain.span import Refusal
from audience_sync.errors import BadCalls, CredentialsRefused, DestinationPaused, RetryLater
from audience_sync.pipeline.ports.sending import (
    ALL_ACCEPTED,
    EachByItself,
    MaySend,
    MemberCalls,
    Sent,
    Told,
    at_once,
)

MAX_CALLS = 2_500
MAX_BATCH_BYTES = 500_000
"""Before compression; 500 KB read in the strict way."""
MAX_BYTES = 475_000
"""Of the calls alone: leaves room for commas and the envelope, as Segment's own library does."""

SETTINGS_ADDRESS = "https://cdn.segment.com/v1/projects/{}/settings"
SETTINGS = {"api.segment.io": SETTINGS_ADDRESS, "events.eu1.segmentapis.com": SETTINGS_ADDRESS}
"""By host of the endpoint: where Segment's libraries look a write key up. It is in the URL, so
the URL goes into no text."""

CHECK_ENDPOINT = (
    "check `endpoint`: https://api.segment.io/v1, or https://events.eu1.segmentapis.com/v1 "
    "for a workspace in the EU"
)
CHECK_KEY = "check `write_key`: Segment shows it under the source's Settings, API Keys"


@dataclass(kw_only=True, slots=True, eq=False)
class SegmentDestination:
    """A ``Destination``: an Identify call per change, and an event beside it, many in a request.

    Args:
        endpoint: up to and including ``/v1``.
        integrations: routing of each call, e.g. ``{"All": False, "Crisp": True}``; empty: none.
        fingerprint: keyed hash of endpoint and credential (``domain.message_id.keyed``).
        reread: the write key as it is configured now, asked for when Segment refused this one.
        rate: events per second. quota: events a day. deadline: seconds.
        ssl_context: whom to trust, if not the usual authorities.
    """

    name: str
    write_key: str = field(repr=False)
    endpoint: str
    fingerprint: str
    rate: float
    reserve: float
    concurrency: int
    clock: Callable[[], datetime] = field(repr=False)
    quota: int | None = None
    unit: str = "call"
    bundles: bool = False
    integrations: dict[str, Any] = field(default_factory=dict)
    with_track: bool = False
    max_calls: int = 500
    max_bytes: int = MAX_BYTES
    deadline: float = 30.0
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    reread: Callable[[], str | None] = field(default=same, repr=False)
    _credential: Credential = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._credential = Credential(self.write_key, self.reread)

    def look_ahead(self, members: Sequence[Sequence[Told]]) -> None:
        """Nothing is read for calls."""

    def calls(self, told: Sequence[Told]) -> MemberCalls | Refusal:
        return member_calls(
            told,
            fingerprint=self.fingerprint,
            integrations=self.integrations,
            with_track=self.with_track,
        )

    def by_hand(self, call: ByHand, installation: str) -> MemberCalls | Refusal:
        return call_by_hand(
            call,
            installation=installation,
            fingerprint=self.fingerprint,
            integrations=self.integrations,
        )

    def calls_per_change(self, change: Tell, kind: Kind) -> int:
        return calls_per_change(change, kind, with_track=self.with_track)

    def meter(self) -> EachByItself:
        return EachByItself()

    def count(self) -> None:
        """Calls are counted."""

    def sender(self) -> SegmentSender:
        return SegmentSender(
            name=self.name,
            url=self.endpoint.rstrip("/") + "/batch",
            transport=self._transport({}),
            credential=self._credential,
            clock=self.clock,
        )

    def reach(self) -> None:
        """Return when the endpoint answers and the write key is known; sends no event.

        Raises:
            CredentialsRefused: Segment does not know the write key.
            DestinationPaused: address, proxy or certificate cannot be used.
            RetryLater: no answer.
        """
        with closing(self._transport({})) as transport:
            transport.request("HEAD", self.endpoint.rstrip("/") + "/batch")
            settings = SETTINGS.get(urlsplit(self.endpoint).hostname or "")
            if settings is None:
                return
            address = settings.format(quote(self.write_key, safe=""))
            status = transport.request("GET", address).status
        if status == 404:
            raise CredentialsRefused(f"{self.name}: Segment does not know this key", hint=CHECK_KEY)
        if classify(status) is not Answer.OK:
            raise RetryLater(f"{self.name}: Segment could not look the key up ({status})")

    def _transport(self, headers: dict[str, str]) -> Transport:
        return Transport(
            name=self.name,
            headers=headers,
            deadline=self.deadline,
            clock=self.clock,
            ssl_context=self.ssl_context,
        )


class SegmentSender:
    """A ``Sender``: one worker's connection to ``url``."""

    def __init__(
        self,
        *,
        name: str,
        url: str,
        transport: Transport,
        credential: Credential,
        clock: Callable[[], datetime],
    ) -> None:
        self._name = name
        self._url = url
        self._transport = transport
        self._credential = credential
        self._clock = clock

    def send(self, members: Sequence[MemberCalls], may_send: MaySend = at_once) -> Sent:
        bodies = [body for member in members for body in member.bodies]
        if not bodies:
            return ALL_ACCEPTED
        may_send(len(bodies))
        batch = self._batch(bodies)
        if len(bodies) > MAX_CALLS or len(batch) > MAX_BATCH_BYTES:
            raise BadCalls(f"{self._name}: {len(bodies)} calls, {len(batch):,} bytes in one batch")
        key = self._credential.value
        headers = {
            "Authorization": basic(key, ""),
            "Content-Type": "application/json",
            "Content-Encoding": "gzip",
        }
        body = gzip.compress(batch, compresslevel=1, mtime=0)
        self._judge(self._transport.post(self._url, body, headers), key)
        return ALL_ACCEPTED

    def close(self) -> None:
        self._transport.close()

    def _batch(self, bodies: Sequence[bytes]) -> bytes:
        """``sentAt`` is of this attempt: Segment corrects ``timestamp`` by its distance."""
        sent_at = iso(self._clock()).encode()
        return b'{"batch":[' + b",".join(bodies) + b'],"sentAt":"' + sent_at + b'"}'

    def _judge(self, reply: Reply, key: str) -> None:
        """Return when ``reply`` to a request with ``key`` means accepted; raise what else."""
        status = reply.status
        match classify(status):
            case Answer.OK:
                if not says_success(reply):
                    raise RetryLater(
                        f"{self._name}: answered {status}, but not as Segment does "
                        "(a proxy or a captive portal?)"
                    )
            case Answer.SLOW_DOWN:
                raise RetryLater(
                    f"{self._name}: too many requests ({status})",
                    after=self._wait(reply),
                    slow_down=True,
                )
            case Answer.RETRY:
                raise RetryLater(f"{self._name}: unavailable ({status})", after=reply.retry_after)
            case Answer.TOO_LARGE_OR_BAD:
                raise BadCalls(f"{self._name}: request refused ({status})")
            case Answer.CREDENTIALS:
                if self._credential.renewed(key):
                    # Asked again by the pipeline, which looks at the lease before each request.
                    raise RetryLater(f"{self._name}: key refused ({status}); there is a new one")
                raise CredentialsRefused(f"{self._name}: key refused ({status})", hint=CHECK_KEY)
            case Answer.MISCONFIGURED:
                raise DestinationPaused(
                    f"{self._name}: unexpected answer {status}", hint=CHECK_ENDPOINT
                )

    def _wait(self, reply: Reply) -> float | None:
        """Seconds. Segment sends ``X-RateLimit-Reset`` too, in seconds as well."""
        if reply.retry_after is not None:
            return reply.retry_after
        return retry_after(reply.headers.get("x-ratelimit-reset"), self._clock())


def says_success(reply: Reply) -> bool:
    """Segment's ``{"success": true}``, whole; not a portal's page, not an empty or cut body."""
    if reply.oversize:
        return False
    try:
        answer = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(answer, dict) and answer.get("success") is True
