from __future__ import annotations

import pytest

from audience_sync.domain.audience import Kind, Row, Tell
from audience_sync.domain.change import Change, compose, compose_sets, is_told

ALL = frozenset(Tell)
FREE: Row = {"plan": "free"}
PRO: Row = {"plan": "pro"}


def change(before: Row | None, after: Row | None, user_id: str = "u1") -> Change:
    return Change(user_id=user_id, before=before, after=after)


@pytest.mark.parametrize(
    ("one", "kind"),
    [
        (change(None, FREE), Tell.ENTERED),
        (change(FREE, None), Tell.EXITED),
        (change(FREE, PRO), Tell.UPDATED),
        (change(None, {}), Tell.ENTERED),
        (change({}, None), Tell.EXITED),
    ],
)
def test_kind(one: Change, kind: Tell) -> None:
    assert one.kind is kind


@pytest.mark.parametrize(
    ("first", "then", "net"),
    [
        (change(None, FREE), change(FREE, PRO), change(None, PRO)),
        (change(None, FREE), change(FREE, None), None),
        (change(FREE, None), change(None, FREE), None),
        (change(FREE, None), change(None, PRO), change(FREE, PRO)),
        (change(FREE, PRO), change(PRO, FREE), None),
        (change(FREE, PRO), change(PRO, None), change(FREE, None)),
    ],
)
def test_compose(first: Change, then: Change, net: Change | None) -> None:
    assert compose(first, then) == net


def test_a_user_who_came_left_and_came_again_entered() -> None:
    sets = [[change(None, FREE)], [change(FREE, None)], [change(None, PRO)]]
    assert list(compose_sets(sets)) == [change(None, PRO)]


@pytest.mark.parametrize(
    ("one", "tell", "told"),
    [
        (change(None, FREE), {Tell.ENTERED}, True),
        (change(None, FREE), {Tell.EXITED, Tell.UPDATED}, False),
        (change(FREE, None), {Tell.EXITED}, True),
        (change(FREE, None), {Tell.ENTERED, Tell.UPDATED}, False),
        (change(FREE, PRO), {Tell.UPDATED}, True),
        (change(FREE, PRO), {Tell.ENTERED, Tell.EXITED}, False),
        (change({}, None), ALL, True),
        (change({"plan": None}, FREE), ALL, True),
        (change({"plan": ""}, {"plan": None}), ALL, True),
        (change({"n": 1}, {"n": 1.5}), ALL, True),
        (change({"vip": True}, {"vip": False}), ALL, True),
    ],
)
def test_is_told(one: Change, tell: set[Tell], told: bool) -> None:
    assert is_told(one, tell, Kind.AUDIENCE) is told


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"plan": "pro"}, {"plan": "pro", "city": "Oslo"}),
        ({"plan": "pro", "city": "Oslo"}, {"plan": "pro"}),
        ({"plan": "pro"}, {"tier": "pro"}),
        ({"n": 1}, {"n": 1.0}),
        ({"n": 1}, {"n": "1"}),
        ({"n": 2.0}, {"n": "2"}),
        ({"vip": True}, {"vip": "true"}),
        ({"n": None}, {"n": None}),
    ],
)
def test_another_column_or_another_type_tells_nobody(before: Row, after: Row) -> None:
    assert not is_told(change(before, after), ALL, Kind.AUDIENCE)
    assert not is_told(change(after, before), ALL, Kind.AUDIENCE)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (None, {"value": 1}, True),
        (None, {"value": None}, True),
        ({"value": 1}, None, True),
        ({"value": None}, None, True),
        ({"value": 1}, {"value": 2}, True),
        ({"value": 1}, {"value": None}, True),
        ({"value": None}, {"value": 0}, True),
        ({"value": 1, "plan": "free"}, {"value": 2, "plan": "free"}, True),
        ({"value": 1, "plan": "free"}, {"value": 1, "plan": "pro"}, False),
        ({"value": None, "plan": "free"}, {"value": None, "plan": "pro"}, False),
        ({"value": 1}, {"value": 1.0}, False),
        ({"value": "1"}, {"value": 1}, False),
        ({"value": True}, {"value": "true"}, False),
        ({"value": 1}, {"value": 1, "plan": "pro"}, False),
    ],
)
def test_an_update_of_a_computed_trait_is_told_where_its_value_differs(
    before: Row | None, after: Row | None, told: bool
) -> None:
    assert is_told(change(before, after), ALL, Kind.COMPUTED_TRAIT) is told
    assert not is_told(change(before, after), set(), Kind.COMPUTED_TRAIT)
