"""A change as the calls of one member in a batch (limits: segment-docs, HTTP Tracking API)."""

from __future__ import annotations

from typing import Any

from audience_sync.domain.audience import Kind, Tell
from audience_sync.domain.change import Change
from audience_sync.domain.identify import Computation, identify
from audience_sync.domain.message_id import canonical, message_id
from audience_sync.domain.span import Refusal
from audience_sync.domain.track import event_of, track
from audience_sync.pipeline.ports import MemberCalls, SpanContext

MAX_CALL_BYTES = 32 * 1024
MAX_TRAITS = 299
START = b'{"messageId":"'
NAMES = {"identify": "an Identify call", "track": "a Track call"}


def calls_per_change(change: Tell, kind: Kind, *, with_track: bool) -> int:
    """How many calls ``member_calls`` makes of one change."""
    return 2 if with_track and event_of(change, kind) else 1


def member_calls(
    change: Change,
    context: SpanContext,
    *,
    fingerprint: str,
    integrations: dict[str, Any],
    with_track: bool,
) -> MemberCalls | Refusal:
    """The calls of one change as they stand in a batch, or why Segment would refuse one of them.

    Identify comes first: an event for a user who was never identified may be dropped.
    """
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
