"""A change as the calls of one member in a batch (limits: segment-docs, HTTP Tracking API)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from audience_sync.domain.audience import AudienceKey, Kind, Tell
from audience_sync.domain.by_hand import ByHand
from audience_sync.domain.identify import Computation, identify
from audience_sync.domain.message_id import canonical, message_id
from audience_sync.domain.span import Refusal
from audience_sync.domain.track import event_of, track
from audience_sync.pipeline.ports.sending import MemberCalls, SpanContext, Told

MAX_CALL_BYTES = 32 * 1024
MAX_TRAITS = 299
START = b'{"messageId":"'
NAMES = {"identify": "an Identify call", "track": "a Track call"}


def calls_per_change(change: Tell, kind: Kind, *, with_track: bool) -> int:
    """How many calls ``member_calls`` makes of one change."""
    return 2 if with_track and event_of(change, kind) else 1


def member_calls(
    told: Sequence[Told],
    *,
    fingerprint: str,
    integrations: dict[str, Any],
    with_track: bool,
) -> MemberCalls | Refusal:
    """The calls of one change as they stand in a batch, or why Segment would refuse one of them.

    Identify comes first: an event for a user who was never identified may be dropped.

    Args:
        told: just one: each call names its audience.
    """
    (one,) = told
    change, context = one.change, one.context
    computation = Computation(
        key=context.audience, kind=context.kind, installation=context.installation
    )
    around: dict[str, Any] = {"timestamp": context.timestamp, "integrations": integrations}
    made = [identify(change, computation, **around)]
    if with_track and (event := track(change, computation, **around)):
        made.append(event)
    bodies: list[bytes] = []
    for call in made:
        body = _encoded(call, context, fingerprint)
        if isinstance(body, str):
            return Refusal(user_id=change.user_id, reason=body)
        bodies.append(body)
    return MemberCalls(user_id=change.user_id, bodies=tuple(bodies))


def call_by_hand(
    call: ByHand, *, installation: str, fingerprint: str, integrations: dict[str, Any]
) -> MemberCalls | Refusal:
    """One call that a person makes, or why Segment would refuse it; never with an id of before."""
    once = SpanContext(
        audience=AudienceKey(f"by hand {uuid.uuid4()}"),
        kind=Kind.AUDIENCE,
        span_number=0,
        timestamp=call.at,
        installation=installation,
    )
    body = _encoded(call.body(integrations), once, fingerprint)
    if isinstance(body, str):
        return Refusal(user_id=call.user_id, reason=body)
    return MemberCalls(user_id=call.user_id, bodies=(body,))


def _encoded(call: dict[str, Any], context: SpanContext, fingerprint: str) -> bytes | str:
    """The call with its messageId, or why Segment would refuse it.

    The id is of the very bytes it is put in front of, so one id can never have two bodies.
    """
    what = NAMES[call["type"]]
    if (traits := len(call.get("traits", ()))) > MAX_TRAITS:
        return f"{what} with {traits} traits (limit {MAX_TRAITS})"
    try:
        unnamed = canonical(call)
    except ValueError:
        return f"{what} with a value that JSON cannot hold (NaN, infinity or half a character)"
    name = message_id(
        unnamed,
        installation=context.installation,
        destination=fingerprint,
        audience=context.audience,
        span_number=context.span_number,
    )
    body = START + name.encode() + b'",' + unnamed[1:]
    if len(body) > MAX_CALL_BYTES:
        return f"{what} of {len(body):,} bytes (limit {MAX_CALL_BYTES:,})"
    return body
