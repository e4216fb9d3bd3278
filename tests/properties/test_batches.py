"""Batches: everybody once, in order, within the limits; and the part for which a quota suffices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from audience_sync.destinations.crisp_bulk import REPEATED
from audience_sync.destinations.crisp_document import Document
from audience_sync.destinations.crisp_member import CrispCalls
from audience_sync.destinations.crisp_sender import BulkMeter, SharingCalls
from audience_sync.domain.change import Change
from audience_sync.domain.contact import EPOCH
from audience_sync.domain.span import Refusal
from audience_sync.pipeline.batches import Batch, batches
from audience_sync.pipeline.bundle import Member
from audience_sync.pipeline.ports.sending import MemberCalls, Meter, Told
from tests.fakes.destination import FakeDestination

GROUPS = st.sampled_from([None, b"a", b"b"])
COSTS = st.one_of(st.none(), st.tuples(st.integers(1, 4), GROUPS))
"""``None``: the member is refused."""


SHARED = {b"a": object(), b"b": object()}


def calls(number: int, cost: int, group: bytes | None) -> CrispCalls:
    user_id = f"u{number:05}"
    how: dict[str, Any] = {
        "user_id": user_id,
        "bodies": (b"",),
        "requests": cost,
        "document": Document(user_id=user_id, as_of=EPOCH),
        "members_left": 0,
    }
    if group is None:
        return CrispCalls(**how)
    return SharingCalls(
        **how,
        together=SHARED[group],  # type: ignore[arg-type]
        is_likely=number % 3 > 0,
        shared_requests=7 if number % 5 == 0 else 0,
    )


@dataclass(kw_only=True, eq=False)
class Sharing(FakeDestination):
    """Members of a group share a request."""

    made: Any = ()

    def look_ahead(self, members: Sequence[Sequence[Told]]) -> None:
        """Nothing is read for calls."""

    def calls(self, told: Sequence[Told]) -> MemberCalls | Refusal:
        found: MemberCalls | Refusal = self.made[int(told[0].change.user_id[1:])]
        return found

    def meter(self) -> Meter:  # type: ignore[override]
        return BulkMeter()


def is_full(members: Sequence[MemberCalls]) -> bool:
    meter = BulkMeter()
    return any(meter.is_full for member in members if meter.add(member)) and len(members) > 1


def cost_of(members: Sequence[MemberCalls], meter: Meter) -> int:
    return max((meter.add(member) for member in members), default=0)


@given(st.lists(COSTS, max_size=60), st.integers(1, 30), st.integers(0, 40))
def test_all_of_them(costs: list[Any], max_calls: int, amount: int) -> None:
    made: list[MemberCalls | Refusal] = [
        calls(n, *cost) if cost else Refusal(user_id=f"u{n:05}", reason="no")
        for n, cost in enumerate(costs)
    ]
    to = Sharing(made=made, max_calls=max_calls)
    change = [Change(user_id=f"u{n:05}", before=None, after={}) for n in range(len(made))]
    told = [
        Member(user_id=c.user_id, told=[Told(change=c, context=None)], spans=(0,))  # type: ignore[arg-type]
        for c in change
    ]
    found = list(batches(told, to))
    assert [user for batch in found for user in batch.spans] == [c.user_id for c in change]
    for batch in found:
        assert batch.cost == cost_of(batch.members, to.meter())
        assert len(batch.members) <= max_calls
        assert not is_full(batch.members[:-1])
        assert batch.last_user_id == max(batch.spans)
        the_first(batch, amount)


def the_first(batch: Batch, amount: int) -> None:
    """The longest beginning that can be paid, with the refused before the cut."""
    part = batch.first(amount, BulkMeter())
    if batch.cost <= amount:
        assert part is batch
        return
    cut = next(
        n
        for n in range(len(batch.members))
        if cost_of(batch.members[: n + 1], BulkMeter()) > amount
    )
    beyond = batch.members[cut].user_id
    refused = [refusal for refusal in batch.refusals if refusal.user_id < beyond]
    if part is None:
        assert cut == 0
        assert not refused
        return
    assert part.members == batch.members[:cut]
    assert part.refusals == refused
    assert part.cost == cost_of(part.members, BulkMeter()) <= amount
    assert part.last_user_id < beyond


@given(st.lists(st.tuples(st.integers(1, 3), GROUPS), max_size=80))
def test_what_is_shared_is_paid_for_once(costs: list[Any]) -> None:
    made = [calls(n, *cost) for n, cost in enumerate(costs)]
    meter = BulkMeter()
    paid = [meter.add(one) for one in made]
    groups = {group for _, group in costs if group}
    alone = sum(c.cost for c in made if not isinstance(c, SharingCalls) or not c.is_likely)
    shared = sum(c.shared_requests for c in made if isinstance(c, SharingCalls))
    assert (paid or [0])[-1] == alone + shared
    assert all(before <= after for before, after in pairwise(paid))
    assert meter.is_full == (alone > REPEATED or len(groups) > 1)
