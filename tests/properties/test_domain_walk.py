"""What a span walks, against plain dicts: the count taken beforehand is what is walked later."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from audience_sync.domain.audience import Kind, Row, Tell
from audience_sync.domain.change import Change, is_told
from audience_sync.domain.walk import Standing, Told, as_state, first_of_each, survey, to_come, walk

Membership = dict[str, Row]

IDS = ["a", "b", "B", "é", "ﬀ", "😀", "日", "u1", "u10", "u2"]
USER_IDS = st.sampled_from(IDS)
ROWS = st.fixed_dictionaries({"plan": st.sampled_from(["free", "pro"])})
MEMBERSHIPS = st.dictionaries(USER_IDS, ROWS)
STANDING = st.dictionaries(USER_IDS, st.booleans())
"""Who stands, and whether a person asked to tell them again."""
TELL = st.sets(st.sampled_from(Tell))
KINDS = st.sampled_from(Kind)


def diff(before: Membership, after: Membership) -> list[Change]:
    return [
        Change(user_id=user_id, before=before.get(user_id), after=after.get(user_id))
        for user_id in sorted(before.keys() | after.keys(), key=str.encode)
        if before.get(user_id) != after.get(user_id)
    ]


def listed(standing: dict[str, bool]) -> list[Standing]:
    in_order = sorted(standing, key=str.encode)
    return [Standing(user_id=user_id, retry=standing[user_id]) for user_id in in_order]


def states(user_ids: Sequence[str], now: Membership) -> list[Change]:
    return [as_state(user_id, now.get(user_id)) for user_id in user_ids]


def taken_up(net: Iterable[Change], standing: list[Standing], told: Told) -> list[str]:
    again = list[str]()
    survey(net, standing, told, again.append)
    return again


@given(MEMBERSHIPS, MEMBERSHIPS, STANDING, TELL, KINDS)
def test_the_survey_counts_what_is_walked(
    then: Membership, now: Membership, standing: dict[str, bool], tell: set[Tell], kind: Kind
) -> None:
    told = partial(is_told, tell=tell, kind=kind)
    again = list[str]()
    total = survey(diff(then, now), listed(standing), told, again.append)
    walked = list(walk(diff(then, now), states(again, now), told))
    assert total == len(walked)
    ids = [change.user_id for change in walked]
    assert ids == sorted(set(ids), key=str.encode), "not in order, or somebody twice"


@given(MEMBERSHIPS, MEMBERSHIPS, STANDING, TELL, KINDS)
def test_what_is_foreseen_is_what_is_walked(
    then: Membership, now: Membership, standing: dict[str, bool], tell: set[Tell], kind: Kind
) -> None:
    told = partial(is_told, tell=tell, kind=kind)
    again = taken_up(diff(then, now), listed(standing), told)
    walked = list(walk(diff(then, now), states(again, now), told))
    foreseen = to_come(
        diff(then, now),
        listed(standing),
        told,
        lambda user_ids: {user_id: as_state(user_id, now.get(user_id)) for user_id in user_ids},
    )
    assert [(c.user_id, c.kind, c.after) for c in foreseen] == [
        (c.user_id, c.kind, c.after) for c in walked
    ]


@given(MEMBERSHIPS, MEMBERSHIPS, STANDING, TELL, KINDS)
def test_who_is_told_and_what(
    then: Membership, now: Membership, standing: dict[str, bool], tell: set[Tell], kind: Kind
) -> None:
    told = partial(is_told, tell=tell, kind=kind)
    net = {change.user_id: change for change in diff(then, now)}
    again = taken_up(net.values(), listed(standing), told)
    walked = {c.user_id: c for c in walk(net.values(), states(again, now), told)}
    for user_id in IDS:
        stands, change, was_told = user_id in standing, net.get(user_id), walked.get(user_id)
        asked_for = standing.get(user_id, False)
        if stands and (change is not None or asked_for):
            assert was_told is not None
            # Always the state of now, and never as an update: it has not entered there yet.
            assert was_told.after == now.get(user_id)
            assert was_told.kind is (Tell.ENTERED if user_id in now else Tell.EXITED)
            assert user_id in again
        elif change is not None and told(change):
            assert was_told == change
            assert user_id not in again
        else:
            assert was_told is None, "told without a reason"


@given(MEMBERSHIPS, MEMBERSHIPS, STANDING, TELL, st.none() | USER_IDS)
def test_it_goes_on_after_any_position(
    then: Membership,
    now: Membership,
    standing: dict[str, bool],
    tell: set[Tell],
    position: str | None,
) -> None:
    told = partial(is_told, tell=tell, kind=Kind.AUDIENCE)
    net = diff(then, now)
    again = states(taken_up(net, listed(standing), told), now)

    def after(changes: list[Change]) -> list[Change]:
        return [c for c in changes if position is None or c.user_id > position]

    whole = list(walk(net, again, told))
    assert list(walk(after(net), after(again), told)) == after(whole)


@given(st.lists(st.tuples(MEMBERSHIPS, MEMBERSHIPS), max_size=4))
def test_the_first_set_that_has_a_user_speaks_of_it(
    pairs: list[tuple[Membership, Membership]],
) -> None:
    sets = [diff(before, after) for before, after in pairs]
    joined = list(first_of_each(sets))
    assert [c.user_id for c in joined] == sorted(
        {change.user_id for changes in sets for change in changes}, key=str.encode
    )
    for change in joined:
        speaks = next(s for s in sets if any(c.user_id == change.user_id for c in s))
        assert change in speaks


def test_the_state_of_a_user_is_a_change_from_its_opposite() -> None:
    member = as_state("u1", {"plan": "pro"})
    assert (member.kind, member.after) == (Tell.ENTERED, {"plan": "pro"})
    left = as_state("u1", None)
    assert (left.kind, left.after) == (Tell.EXITED, None)
