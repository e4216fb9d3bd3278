"""What is sent, and what a destination needs and learns while it is sent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from audience_sync.domain.audience import AudienceKey, Kind
from audience_sync.domain.change import Change
from audience_sync.domain.contact import Contact, Listing, Person
from audience_sync.domain.span import Refusal


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberCalls:
    """The calls of one member, encoded as they go over the wire, in the order of sending.

    They are accepted or refused together: books, rejections and positions count members.
    """

    user_id: str
    bodies: tuple[bytes, ...]
    requests: int | None = None
    """At most so many, where a rate and a quota count requests; ``None``: they count calls."""

    @property
    def cost(self) -> int:
        """At most so much of a rate and a quota."""
        return len(self.bodies) if self.requests is None else self.requests


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanContext:
    """What is the same for every call of a span."""

    audience: AudienceKey
    kind: Kind
    span_number: int
    timestamp: datetime
    installation: str
    members_left: int = 0
    """Of a span that walks everybody: how many are still to be told. 0 for any other."""
    is_anew: bool = False
    """A person has ordered that all of it is told once more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What one span tells of a member."""

    change: Change
    context: SpanContext


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """Of the members that were sent: who was refused nevertheless, and what was learned."""

    refusals: Sequence[Refusal] = ()
    contacts: Sequence[Contact] = ()
    saved: int = 0
    """Requests fewer than member by member."""


ALL_ACCEPTED = Sent()


MaySend = Callable[[int], None]
"""Called right before each request, with its share of the rate and the quota; returns when it
may go, and raises when nothing may."""


def at_once(_amount: int) -> None:
    """A ``MaySend`` for what no pipeline watches."""


class Contacts(Protocol):
    """Consumed by a destination that has people of its own; of this destination only."""

    def find(self, user_ids: Collection[str]) -> Mapping[str, Contact]: ...

    def by_email(self, emails: Collection[str]) -> Mapping[str, Person]:
        """Whom others of our users are, or whom the destination listed; keys are ``folded``."""

    def known(self) -> int:
        """How many contacts there are."""

    def listing(self) -> Listing | None:
        """``None``: the destination's people were never listed."""

    def keep_page(self, people: Sequence[Person], now_at: Listing) -> None:
        """Store one more page of the destination's people, and that it is stored."""

    def keep(self, some: Collection[Contact]) -> None:
        """Store contacts before the position moves over them, unless they were forgotten."""

    def website(self) -> str | None:
        """Which website the destination was found to be; asked for once, not by every run."""

    def keep_website(self, website_id: str) -> None: ...


class Meter(Protocol):
    """What one batch costs while it grows."""

    def add(self, calls: MemberCalls) -> int:
        """Count one more member; so much of a rate and a quota is to be there before they are
        sent together, which is all that they cost, or enough to begin. It never falls."""

    @property
    def is_full(self) -> bool:
        """Whether the last one was too much, unless it is the only one."""


class EachByItself:
    """A ``Meter`` where members share nothing."""

    is_full = False

    def __init__(self) -> None:
        self._cost = 0

    def add(self, calls: MemberCalls) -> int:
        self._cost += calls.cost
        return self._cost


class Sender(Protocol):
    """One worker's connection. Not shared between threads."""

    def send(self, members: Sequence[MemberCalls], may_send: MaySend = at_once) -> Sent:
        """Send all; returning means that all were accepted but for those in ``refusals``.

        What raises may have been applied in part, and is sent again as a whole.

        Raises:
            BadCalls: the destination refused the request for its content (400, 413): the
                caller bisects; a single member is a rejection.
            CallsOutdated: calls that are made from now on are others; walk from the position.
            RetryLater: nothing is known of the outcome, or it is known not to have happened.
            DestinationPaused: stop sending to this destination.
        """

    def close(self) -> None: ...
