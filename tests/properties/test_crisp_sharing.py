"""Who shares requests to Crisp: everybody is told exactly what they are to be told, in few."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audience_sync.destinations.crisp_sharing import (
    FEWEST,
    PEOPLE,
    arranged,
    counted,
    is_shared,
    most_shared,
    parts_of,
    size_for,
)

VALUES = st.sampled_from([True, False, 1, 1.0, "1", "pro", "free", 2**53 - 1, 0.1, ""])
DATA = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


def told_by(members: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """What each member is told by the requests; nobody is told a key twice."""
    found: dict[int, dict[str, Any]] = {}
    for one in arranged([parts_of(data) for data in members]):
        assert 0 < len(one.members) <= PEOPLE
        assert len({*one.members}) == len(one.members)
        for place in one.members:
            data = found.setdefault(place, {})
            assert not data.keys() & one.data.keys()
            data |= one.data
    return found


@given(st.lists(st.tuples(DATA, st.integers(1, 12)), max_size=12), st.randoms())
def test_whoever_is_told_is_told_all_and_nothing_else(
    groups: list[tuple[dict[str, Any], int]], draw: random.Random
) -> None:
    members = [data for data, count in groups for _ in range(count)]
    draw.shuffle(members)
    for place, data in told_by(members).items():
        assert data == members[place]
        assert {k: type(v) for k, v in data.items()} == {
            k: type(v) for k, v in members[place].items()
        }


@given(st.lists(st.tuples(DATA, st.integers(1, 12)), max_size=12))
def test_it_never_takes_more_requests_than_one_for_each(
    groups: list[tuple[dict[str, Any], int]],
) -> None:
    """With the one read of those that say the same; and whom many are like is told with them."""
    members = [data for data, count in groups for _ in range(count)]
    parts = [parts_of(data) for data in members]
    found = arranged(parts)
    told = {place for one in found for place in one.members}
    assert len(found) + len({one.parts for one in found}) <= 0.4 * len(told)
    alike = Counter(parts)
    for place, of_one in enumerate(parts):
        if of_one and alike[of_one] >= FEWEST * len(of_one):
            assert place in told


@pytest.mark.parametrize(
    ("keys", "most"),
    [
        ({"vip": 1}, 8),
        ({"vip": 1, "plan": 4}, 4 * 2 + 4 + 1),
        ({"vip": 1, "country": 50}, 4 + 1 + 50 * 2),
        ({"vip": 2, "winback": 2, "lapsed": 2}, 40),
        ({"vip": 2, "winback": 2, "lapsed": 2, "country": 50, "plan": 4}, 140),
    ],
)
def test_many_different_people_take_few_requests(keys: dict[str, int], most: int) -> None:
    """By key and value: whole equal data would be hundreds of kinds."""
    draw = random.Random(1)
    members = [{key: draw.randrange(count) for key, count in keys.items()} for _ in range(2_000)]
    found = arranged([parts_of(data) for data in members])
    assert len({place for one in found for place in one.members}) == 2_000
    assert len(found) + len({one.parts for one in found}) <= most


def test_values_of_ones_own_are_told_alone() -> None:
    members = [{"vip": True, "score": number} for number in range(40)]
    members += [{"vip": True, "score": -1}] * 10
    found = arranged([parts_of(data) for data in members])
    assert [(one.data, [*one.members]) for one in found] == [
        ({"vip": True, "score": -1}, [*range(40, 50)])
    ]


def test_what_is_said_to_the_same_people_is_said_at_once() -> None:
    (one,) = arranged([parts_of({"vip": True, "old": False})] * 7)
    assert one.data == {"vip": True, "old": False}


def test_a_rest_of_a_few_takes_no_request_of_its_own() -> None:
    found = arranged([parts_of({"vip": True})] * (PEOPLE + 1))
    assert [len(one.members) for one in found] == [251, 250]


def test_who_needs_more_parts_needs_more_who_are_like_them() -> None:
    one, two = parts_of({"a": 1}), parts_of({"a": 1, "b": 2})
    for count, of_one, of_two in [(4, False, False), (5, True, False), (9, True, False)]:
        told = counted([{"a": 1, "b": 2}] * count)
        assert (is_shared(one, told), is_shared(two, told)) == (of_one, of_two)
    assert is_shared(two, counted([{"a": 1, "b": 2}] * 10))
    assert not is_shared(one, {})


@given(st.lists(DATA, max_size=60), st.integers(0, 12))
def test_a_small_quota_suffices_for_those_who_are_looked_at_together(
    members: list[dict[str, Any]], most: int
) -> None:
    size = size_for(members, most)
    for start in range(0, len(members), size):
        some = members[start : start + size]
        assert most_shared(counted(some)) <= most or size < FEWEST
        found = arranged([parts_of(data) for data in some])
        assert 2 * len(found) <= most_shared(counted(some))
    assert size_for(members, float("inf")) == max(len(members), 1)
