"""A destination in memory: real calls, an answer of your choice, and a record of what arrived."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import orjson

from audience_sync.destinations.calls import call_by_hand, calls_per_change, member_calls
from audience_sync.domain.audience import Kind, Tell
from audience_sync.domain.by_hand import ByHand
from audience_sync.domain.span import Refusal
from audience_sync.pipeline.ports.sending import (
    ALL_ACCEPTED,
    EachByItself,
    MaySend,
    MemberCalls,
    Sent,
    Told,
    at_once,
)

Answer = Callable[[Sequence[str]], None]
"""Asked with the user ids of each request; what it raises is the destination's answer."""


def accept(_user_ids: Sequence[str]) -> None:
    """Every request is accepted."""


@dataclass(kw_only=True, eq=False)
class FakeDestination:
    """A ``Destination``. Everything is fast and large unless a test says otherwise."""

    name: str = "fake"
    fingerprint: str = "fingerprint"
    unit: str = "call"
    rate: float = 1e9
    quota: int | None = None
    reserve: float = 0.2
    concurrency: int = 4
    max_calls: int = 10
    max_bytes: int = 1_000_000
    deadline: float = 1.0
    with_track: bool = False
    bundles: bool = False
    skips: bool = False
    """Whether the ``refused`` cannot be told yet, rather than for good."""
    prepare: Answer = accept
    """Called before a request asks whether it may go."""
    answer: Answer = accept
    refused: Collection[str] = ()
    """User ids that are refused before anything is sent."""
    requests: list[list[str]] = field(default_factory=list)
    """User ids of every request, in the order in which they started."""
    accepted: list[MemberCalls] = field(default_factory=list)
    """In the order of acceptance, repeats included."""
    in_flight: int = 0
    most_in_flight: int = 0
    open_senders: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def look_ahead(self, members: Sequence[Sequence[Told]]) -> None:
        """Nothing is read for calls."""

    def calls(self, told: Sequence[Told]) -> MemberCalls | Refusal:
        user_id = told[0].change.user_id
        if user_id in self.refused:
            return Refusal(user_id=user_id, reason="no usable address", skipped=self.skips)
        bodies: list[bytes] = []
        for one in told:
            made = member_calls(
                [one], fingerprint=self.fingerprint, integrations={}, with_track=self.with_track
            )
            if isinstance(made, Refusal):
                return made
            bodies += made.bodies
        requests = 1 if self.bundles else None
        return MemberCalls(user_id=user_id, bodies=tuple(bodies), requests=requests)

    def by_hand(self, call: ByHand, installation: str) -> MemberCalls | Refusal:
        return call_by_hand(
            call, installation=installation, fingerprint=self.fingerprint, integrations={}
        )

    def calls_per_change(self, change: Tell, kind: Kind) -> int:
        return calls_per_change(change, kind, with_track=self.with_track)

    def meter(self) -> EachByItself:
        return EachByItself()

    def count(self) -> None:
        """Calls are counted."""

    def sender(self) -> FakeSender:
        with self.lock:
            self.open_senders += 1
        return FakeSender(self)

    @property
    def told(self) -> list[str]:
        """User ids accepted, repeats included."""
        return [member.user_id for member in self.accepted]

    @property
    def sent(self) -> list[str]:
        """User ids of all requests, whatever became of them."""
        return [user_id for request in self.requests for user_id in request]

    def bodies(self) -> dict[str, set[bytes]]:
        """By messageId: a correct sender has one body for each."""
        found: dict[str, set[bytes]] = {}
        for member in self.accepted:
            for body in member.bodies:
                found.setdefault(orjson.loads(body)["messageId"], set()).add(body)
        return found

    def state(self) -> dict[str, object]:
        """What each user was told last, by the order of acceptance."""
        last = {member.user_id: orjson.loads(member.bodies[0]) for member in self.accepted}
        return {
            user_id: body["traits"][body["context"]["personas"]["computation_key"]]
            for user_id, body in last.items()
        }


class FakeSender:
    """A ``Sender``."""

    def __init__(self, destination: FakeDestination) -> None:
        self._to = destination

    def send(self, members: Sequence[MemberCalls], may_send: MaySend = at_once) -> Sent:
        to = self._to
        user_ids = [member.user_id for member in members]
        to.prepare(user_ids)
        may_send(sum(member.cost for member in members))
        with to.lock:
            to.requests.append(user_ids)
            to.in_flight += 1
            to.most_in_flight = max(to.most_in_flight, to.in_flight)
        try:
            to.answer(user_ids)
            with to.lock:
                to.accepted += members
            return ALL_ACCEPTED
        finally:
            with to.lock:
                to.in_flight -= 1

    def close(self) -> None:
        with self._to.lock:
            self._to.open_senders -= 1
