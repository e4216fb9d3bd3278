"""Whom Segment was told of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from audience_sync.sandbox.events import Events, Happened

MOST_USERS = 500_000
KEPT_EVENTS = 50
"""Of one user, the newest; the others are only counted."""


def user_of(call: dict[str, Any]) -> str | None:
    """Whom a call is about."""
    for user in (call.get("userId"), call.get("anonymousId")):
        if isinstance(user, str) and user:
            return user
    return None


@dataclass(kw_only=True, slots=True)
class User:
    user_id: str
    traits: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    event_count: int = 0
    updated_at: datetime

    @property
    def email(self) -> str:
        return str(self.traits.get("email", ""))


class Users:
    """The oldest is dropped, and counted, when there are more than ``MOST_USERS``."""

    def __init__(self, clock: Callable[[], datetime], events: Events) -> None:
        self._clock = clock
        self._events = events
        self._users: dict[str, User] = {}
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._users)

    def __iter__(self) -> Iterator[User]:
        """Newest first."""
        return reversed(self._users.values())

    def find(self, user_id: str) -> User | None:
        return self._users.get(user_id)

    def take(self, call: dict[str, Any]) -> None:
        """A call that was checked: traits are merged, events kept."""
        now = self._clock()
        user_id = user_of(call)
        assert user_id is not None
        user = self._users.get(user_id)
        if user is None:
            user = self._users[user_id] = User(user_id=user_id, updated_at=now)
            self._bound()
        user.updated_at = now
        if call["type"] == "identify":
            user.traits |= call.get("traits", {})
            return
        user.event_count += 1
        name, properties = call["event"], call.get("properties", {})
        timestamp = call.get("timestamp", now.isoformat())
        user.events.append({"event": name, "properties": properties, "timestamp": timestamp})
        del user.events[:-KEPT_EVENTS]
        self._events.add(
            Happened(at=now, api="segment", who=user_id, name=name, properties=properties)
        )

    def _bound(self) -> None:
        while len(self._users) > MOST_USERS:
            del self._users[next(iter(self._users))]
            self.dropped += 1
