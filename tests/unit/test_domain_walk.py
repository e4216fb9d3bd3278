"""What a resync tells: who is new to the destination has entered, who is known has not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from audience_sync.domain import walk
from audience_sync.domain.audience import Tell
from audience_sync.domain.change import Change
from audience_sync.domain.walk import as_told


def entered(*user_ids: str) -> list[Change]:
    return [Change(user_id=user_id, before=None, after={}) for user_id in user_ids]


def exited(*user_ids: str) -> list[Change]:
    return [change.inverse() for change in entered(*user_ids)]


def new(members: Sequence[Change], *told: tuple[str | None, list[Change]]) -> list[str]:
    found = [change for change in as_told(members, told) if change.after is not None]
    assert [change.user_id for change in found] == [change.user_id for change in members]
    assert {change.kind for change in found} <= {Tell.ENTERED, Tell.UPDATED}
    return [change.user_id for change in found if change.kind is Tell.ENTERED]


def test_everybody_is_new_where_nothing_was_told() -> None:
    assert new(entered("a", "b")) == ["a", "b"]


def test_who_entered_since_is_new() -> None:
    since = sorted([*entered("b"), *exited("c")], key=lambda change: change.user_id)
    assert new(entered("a", "b", "d"), (None, since)) == ["b"]


def test_an_abandoned_delivery_told_up_to_its_position() -> None:
    assert new(entered("a", "b", "c"), ("b", [])) == ["c"]
    assert new(entered("a", "b", "c"), ("b", entered("a"))) == ["a", "c"]


def test_the_last_time_counts() -> None:
    """``a`` was told as one who left, then came back; ``b`` was beyond that position."""
    assert new(entered("a", "b"), (None, []), ("a", entered("a", "b"))) == ["a"]


def test_one_who_was_told_once_is_known() -> None:
    """Told of the first snapshot, then in part of a later one in which ``b`` had come."""
    assert new(entered("a", "b", "c"), (None, entered("b", "c")), ("b", [])) == ["c"]


def test_who_has_left_is_told_so_wherever_the_destination_was_told() -> None:
    """``c`` left since the first time, ``d`` was beyond the position of the second."""
    told = [(None, exited("c")), ("b", exited("c", "d"))]
    found = list(as_told(entered("a", "b"), told))
    assert [c.user_id for c in found if c.kind is Tell.EXITED] == ["c", "d"]
    assert found == sorted(found, key=lambda change: change.user_id)


def test_states_of_those_who_stand_are_asked_for_some_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(walk, "AT_A_TIME", 4)
    asked: list[list[str]] = []

    def unchanged(user_ids: Sequence[str]) -> dict[str, Change]:
        asked.append(list(user_ids))
        return {user_id: walk.as_state(user_id, {}) for user_id in user_ids}

    stand = [walk.Standing(user_id=user_id, retry=True) for user_id in "acefg"]
    found = walk.to_come(entered("b", "d"), stand, lambda _change: True, unchanged)
    assert [change.user_id for change in found] == list("abcdefg")
    assert asked == [["a", "c"], ["e", "f", "g"]]
