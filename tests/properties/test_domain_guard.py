from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from audience_sync.domain.guard import ALWAYS_SMALL, Counts, Limits, Window, judge

MANY = st.integers(0, 10_000_000)


@st.composite
def comparisons(draw: st.DrawFn) -> Counts:
    previous = draw(st.integers(1, 2_000) | MANY)
    exited = draw(st.integers(0, previous))
    entered = draw(st.integers(0, 2_000) | MANY)
    return Counts(
        previous=previous,
        entered=entered,
        exited=exited,
        updated=0,
        members=previous + entered - exited,
    )


def beyond(exits: int, percents: int, members: int, floor: int) -> bool:
    """P11 in whole numbers and fractions."""
    allowed = max(Fraction(percents * members, 100), min(floor, Fraction(members, 2)))
    return exits >= ALWAYS_SMALL and exits > allowed


@given(
    comparisons(), MANY, st.integers(0, 2_000), st.integers(1, 100), st.integers(1, 100), st.data()
)
def test_held_is_what_the_promise_says(
    counts: Counts, at_start: int, drip: int, share: int, share_24h: int, data: st.DataObject
) -> None:
    floor = data.draw(st.integers(0, 500))
    max_entries = data.draw(st.integers(1, 500))
    limits = Limits(
        max_exits=share / 100,
        max_exits_24h=share_24h / 100,
        max_entries=max_entries / 100,
        floor=floor,
    )
    window = Window(members_at_start=at_start, unapproved_exits=drip)
    allowed_entries = max(Fraction(max_entries * counts.previous, 100), 10 * floor)
    expected = (
        bool(counts.previous and not counts.members)
        or beyond(counts.exited, share, counts.previous, floor)
        or bool(counts.exited and beyond(drip + counts.exited, share_24h, at_start, floor))
        or bool(counts.previous and counts.entered > allowed_entries)
    )
    assert judge(counts, window, limits, first=False).held is expected
    assert not judge(counts, window, limits, first=True).held


@given(st.integers(20, 20_000), st.integers(1, 99))
def test_exactly_the_limit_goes(members: int, share: int) -> None:
    exited = members * share // 100
    counts = Counts(previous=members, entered=0, exited=exited, updated=0, members=members - exited)
    window = Window(members_at_start=members, unapproved_exits=0)
    limits = Limits(max_exits=share / 100, max_exits_24h=share / 100, floor=0)
    assert not judge(counts, window, limits, first=False).held
