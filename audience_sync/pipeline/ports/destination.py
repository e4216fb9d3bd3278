"""A destination, as a delivery run sees it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from audience_sync.domain.audience import Kind, Tell
from audience_sync.domain.by_hand import ByHand
from audience_sync.domain.requests import Requests
from audience_sync.domain.span import Refusal
from audience_sync.pipeline.ports.sending import MemberCalls, Meter, Sender, Told


class Count(Protocol):
    """What a walk takes, counted member by member without asking the destination."""

    bulk: bool
    """Whether members are told in bulk, as it is configured."""

    def of(self, *walks: Iterable[Sequence[Told]]) -> Requests:
        """For the members of one walk after another, each with all that is told of them together.
        To be used once."""


class Destination(Protocol):
    """Where calls go."""

    name: str
    fingerprint: str
    unit: str
    """What rate and quota count: ``call`` or ``request``."""
    rate: float
    """Per second."""
    quota: int | None
    """A day; ``None``: as many as the rate allows."""
    reserve: float
    """Of both, while an initial delivery goes on, for the incremental ones."""
    concurrency: int
    """Requests in flight beyond the committed position, at most."""
    max_bytes: int
    """Of the bodies of one request together; see ``max_calls``."""
    deadline: float
    """Seconds that one request may take in all."""
    bundles: bool
    """Takes what several audiences tell of a member together; else ``told`` is always one."""

    @property
    def max_calls(self) -> int:
        """Of one batch. Calls of one member are never split, so a member alone may pass it."""

    def meter(self) -> Meter:
        """For a new batch."""

    def look_ahead(self, members: Sequence[Sequence[Told]]) -> None:
        """This thread asks for the ``calls`` of ``members`` next, so what they need can be read at
        once."""

    def calls(self, told: Sequence[Told]) -> MemberCalls | Refusal:
        """Turn changes of one member into calls, or say why they cannot be told."""

    def by_hand(self, call: ByHand, installation: str) -> MemberCalls | Refusal:
        """One call that a person makes, or why it cannot be told."""

    def calls_per_change(self, change: Tell, kind: Kind) -> int:
        """How many calls a change of an audience or computed trait becomes, without making them."""

    def count(self) -> Count | None:
        """``None``: calls are counted, which need not be made for it."""

    def sender(self) -> Sender: ...
