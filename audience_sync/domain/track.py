"""The Track call beside an Identify call (segment-docs, Using Engage Data; Computed Traits)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from audience_sync.domain.audience import Kind, Tell
from audience_sync.domain.change import Change
from audience_sync.domain.identify import Computation, envelope, last_known

OF_AUDIENCE = {Tell.ENTERED: "Audience Entered", Tell.EXITED: "Audience Exited"}
OF_COMPUTED_TRAIT = "Trait Computed"
KEY_PROPERTY = {Kind.AUDIENCE: "audience_key", Kind.COMPUTED_TRAIT: "trait_key"}


def event_of(change: Tell, kind: Kind) -> str | None:
    """The name of the event; ``None`` for an update of an audience, which nobody enters or exits
    by it."""
    return OF_COMPUTED_TRAIT if kind is Kind.COMPUTED_TRAIT else OF_AUDIENCE.get(change)


def track(
    change: Change, computation: Computation, *, timestamp: datetime, integrations: dict[str, Any]
) -> dict[str, Any] | None:
    """The body of one call, without ``messageId`` and ``sentAt``; ``None`` where there is no event.

    Telling anew what has not changed is none. Of the carried columns only the e-mail travels,
    where Track calls have it.
    """
    event = event_of(change.kind, computation.kind)
    if event is None or change.before == change.after:
        return None
    properties = {
        KEY_PROPERTY[computation.kind]: computation.key,
        computation.key: computation.told(change),
    }
    context: dict[str, Any] = {"personas": computation.personas()}
    if email := last_known(change).get("email"):
        context["traits"] = {"email": email}
    body = {"type": "track", "userId": change.user_id, "event": event, "properties": properties}
    return body | envelope(context, timestamp, integrations)
