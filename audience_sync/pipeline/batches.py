"""Members in batches: as many as the destination takes at once, in ``user_id`` order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from audience_sync.domain.span import Refusal
from audience_sync.errors import AudienceSyncError
from audience_sync.pipeline.bundle import Member, Spans
from audience_sync.pipeline.ports.destination import Destination
from audience_sync.pipeline.ports.sending import MemberCalls, Meter

REFUSALS = 500
"""Members that cannot be told, of one batch, where a request is for fewer than that."""

AHEAD = 2_000
"""Members for whom a destination may read at once what it needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Consecutive members with their calls, and those among them that cannot be told."""

    last_user_id: str
    members: Sequence[MemberCalls]
    refusals: Sequence[Refusal]
    spans: Mapping[str, Spans]
    """Of each of them, in order."""
    cost: int
    """So much of a rate and a quota is to be there: see ``Meter``."""

    def first(self, amount: int, meter: Meter) -> Batch | None:
        """Its beginning, up to the first member for whom ``amount`` does not suffice.

        The batch itself, if it suffices for all of it; ``None``, if it does for nobody.
        """
        if self.cost <= amount:
            return self
        members: list[MemberCalls] = []
        cost = 0
        for member in self.members:
            with_member = meter.add(member)
            if with_member > amount:
                break
            members.append(member)
            cost = with_member
        beyond = self.members[len(members)].user_id
        refusals = [refusal for refusal in self.refusals if refusal.user_id < beyond]
        if not members and not refusals:
            return None
        handled = [one.user_id for one in members] + [one.user_id for one in refusals]
        return replace(
            self, last_user_id=max(handled), members=members, refusals=refusals, cost=cost
        )


@dataclass(kw_only=True, slots=True)
class _Filling:
    """A batch to be."""

    destination: Destination
    members: list[MemberCalls] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    spans: dict[str, Spans] = field(default_factory=dict)
    calls: int = 0
    size: int = 0
    cost: int = 0
    last: str = ""
    _meter: Meter = field(init=False)

    def __post_init__(self) -> None:
        self._meter = self.destination.meter()

    def take(self, member: Member, made: MemberCalls | Refusal) -> bool:
        """``False``: it belongs to the next batch, and nothing fits into this one any more."""
        to = self.destination
        if len(self.refusals) >= max(to.max_calls, REFUSALS):
            return False
        if isinstance(made, MemberCalls):
            calls = self.calls + len(made.bodies)
            size = self.size + sum(len(body) for body in made.bodies)
            cost = self._meter.add(made)
            full = calls > to.max_calls or size > to.max_bytes or self._meter.is_full
            if self.members and full:
                return False
            self.calls, self.size, self.cost = calls, size, cost
            self.members.append(made)
        else:
            self.refusals.append(made)
        self.spans[member.user_id] = member.spans
        self.last = member.user_id
        return True

    def batch(self) -> Batch:
        return Batch(
            last_user_id=self.last,
            members=self.members,
            refusals=self.refusals,
            spans=self.spans,
            cost=self.cost,
        )


def batches(told: Iterable[Member], destination: Destination) -> Iterator[Batch]:
    """Fill batches up to the destination's limits, never splitting a member."""
    filling = _Filling(destination=destination)
    for member, made in _made(iter(told), destination):
        if not filling.take(member, made):
            yield filling.batch()
            filling = _Filling(destination=destination)
            filling.take(member, made)
    if filling.spans:
        yield filling.batch()


def _made(
    told: Iterator[Member], destination: Destination
) -> Iterator[tuple[Member, MemberCalls | Refusal]]:
    for some in _parts(told):
        destination.look_ahead([member.told for member in some])
        for member in some:
            yield member, destination.calls(member.told)


def _parts(told: Iterator[Member]) -> Iterator[list[Member]]:
    """``AHEAD`` at once. Who was read before a failure is told before it is raised."""
    some: list[Member] = []
    try:
        for member in told:
            some.append(member)
            if len(some) == AHEAD:
                yield some
                some = []
    except AudienceSyncError:
        if some:
            yield some
        raise
    if some:
        yield some
