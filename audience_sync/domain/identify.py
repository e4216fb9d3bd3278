"""The Identify call of one membership (facts: what Segment Engage sends).

``traits[computation_key]`` is a real JSON boolean: Segment's parser reads the string ``"true"``
as no membership at all (action-destinations, ``audience-membership.ts``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from audience_sync.domain.audience import VALUE, Kind, Row, Value
from audience_sync.domain.change import Change

COMPUTATION_PREFIX = {Kind.AUDIENCE: "aud_", Kind.COMPUTED_TRAIT: "tra_"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Computation:
    """Who computed a trait: goes into ``context.personas`` of every call."""

    key: str
    kind: Kind
    installation: str

    def personas(self) -> dict[str, str]:
        return {
            "computation_class": str(self.kind),
            "computation_id": COMPUTATION_PREFIX[self.kind] + _short(self.installation, self.key),
            "computation_key": self.key,
            "namespace": "spa_" + _short(self.installation),
            "space_id": "spa_" + _short(self.installation),
        }

    def told(self, change: Change) -> Value:
        """What the trait is after ``change``: whether the user is a member, or the value, which
        is null for one who has left (segment-docs, SQL traits)."""
        if self.kind is Kind.AUDIENCE:
            return change.after is not None
        return None if change.after is None else change.after.get(VALUE)


def identify(
    change: Change, computation: Computation, *, timestamp: datetime, integrations: dict[str, Any]
) -> dict[str, Any]:
    """The body of one call, without ``messageId`` and ``sentAt``.

    Carried columns travel as traits where they have a value; one who exits carries the last
    known ones. The trait key is written last, so that no column can take its place. The column
    ``value`` of a computed trait travels under the trait key only.
    """
    columns: dict[str, Any] = dict(last_known(change))
    if computation.kind is Kind.COMPUTED_TRAIT:
        columns.pop(VALUE, None)
    traits = {k: v for k, v in columns.items() if v is not None}
    traits[computation.key] = computation.told(change)
    context = {"personas": computation.personas()}
    body = {"type": "identify", "userId": change.user_id, "traits": traits}
    return body | envelope(context, timestamp, integrations)


def last_known(change: Change) -> Row:
    """The carried columns of one who is a member, or was one until now."""
    return (change.before if change.after is None else change.after) or {}


def envelope(
    context: dict[str, Any], timestamp: datetime, integrations: dict[str, Any]
) -> dict[str, Any]:
    """What surrounds the content of every call."""
    ours = {"integrations": {"personas": False}, "library": {"name": "audience-sync"}}
    around: dict[str, Any] = {"context": ours | context, "timestamp": iso(timestamp)}
    return around | ({"integrations": integrations} if integrations else {})


def iso(time: datetime) -> str:
    """``2021-02-01T00:00:00.000Z``, the form Segment's own libraries send."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _short(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=13).hexdigest()
