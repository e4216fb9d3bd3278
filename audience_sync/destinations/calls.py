"""A change as the Identify call of a batch (limits: segment-docs, HTTP Tracking API)."""

from __future__ import annotations

from typing import Any

from audience_sync.domain.change import Change
from audience_sync.domain.identify import Computation, identify
from audience_sync.domain.message_id import canonical, message_id
from audience_sync.domain.span import Refusal
from audience_sync.pipeline.ports import Call, SpanContext

MAX_CALL_BYTES = 32 * 1024
MAX_TRAITS = 299
START = b'{"messageId":"'


def identify_call(
    change: Change, context: SpanContext, *, fingerprint: str, integrations: dict[str, Any]
) -> Call | Refusal:
    """The Identify call of one change as it stands in a batch, or why Segment would refuse it.

    The id is of the very bytes it is put in front of, so one id can never have two bodies.
    """
    computation = Computation(
        key=context.audience, kind=context.kind, installation=context.installation
    )
    body = identify(change, computation, timestamp=context.timestamp, integrations=integrations)
    if (traits := len(body["traits"])) > MAX_TRAITS:
        return Refusal(user_id=change.user_id, reason=f"{traits} traits (limit {MAX_TRAITS})")
    try:
        unnamed = canonical(body)
    except ValueError:
        reason = "a value that JSON cannot hold (NaN, infinity or half a character)"
        return Refusal(user_id=change.user_id, reason=reason)
    name = message_id(
        unnamed,
        installation=context.installation,
        destination=fingerprint,
        audience=context.audience,
        span_number=context.span_number,
    )
    line = START + name.encode() + b'",' + unnamed[1:]
    if len(line) > MAX_CALL_BYTES:
        reason = f"a call of {len(line):,} bytes (limit {MAX_CALL_BYTES:,})"
        return Refusal(user_id=change.user_id, reason=reason)
    return Call(user_id=change.user_id, body=line)
