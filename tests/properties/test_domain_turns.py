"""Which spans of a lane are walked together, and after whom."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from audience_sync.domain.turns import TIMES, in_bundles, one_by_one

LEFT = st.lists(
    st.one_of(
        st.integers(0, 20), st.integers(0, 10**6), st.sampled_from([1, 10, 11, 12, 132, 1452])
    ),
    max_size=12,
)
LONG = st.one_of(st.just(-1), st.integers(0, 10**6), st.just(10**9))
"""What takes longer than anybody should wait."""


@given(LEFT, LONG)
def test_everybody_is_walked_once_smallest_first(left: list[int], long: int) -> None:
    for turns in (one_by_one(left), in_bundles(left, lambda amount: amount > long)):
        places = [place for group in turns for place in group]
        assert sorted(places) == list(range(len(left)))
        assert [(left[p], p) for p in places] == sorted((left[p], p) for p in places)
        assert all(turns)


@given(LEFT, LONG)
def test_walking_apart_costs_a_tenth_at_most(left: list[int], long: int) -> None:
    """A member of an earlier bundle may take one request more for each of them: no more requests
    than there are members in all bundles but the last. All together would take as many as there
    are in the largest span, at least."""
    bundles = in_bundles(left, lambda amount: amount > long)
    more = sum(left[place] for bundle in bundles[:-1] for place in bundle)
    assert more * TIMES <= max(left, default=0)


@given(LEFT, LONG)
def test_it_is_paid_only_where_somebody_would_wait(left: list[int], long: int) -> None:
    bundles = in_bundles(left, lambda amount: amount > long)
    through = 0
    for bundle, following in pairwise(bundles):
        through += sum(left[place] for place in bundle)
        assert through + left[following[0]] > long
    if sum(left) <= long:
        assert len(bundles) <= 1


@given(LEFT, LONG)
def test_a_small_one_waits_for_nobody_who_is_much_larger(left: list[int], long: int) -> None:
    for bundle in in_bundles(left, lambda amount: amount > long):
        for number, place in enumerate(bundle[1:], 1):
            smaller = sum(one for one in left if one < left[place])
            smaller += sum(left[p] for p in bundle[:number] if left[p] == left[place])
            waits_long = smaller + left[place] > long
            assert left[place] <= TIMES * smaller or not waits_long
