"""The algebra of changes against plain dicts: a membership is ``{user_id: row}``."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from audience_sync.domain.audience import Kind, Row, Tell
from audience_sync.domain.change import Change, compose_sets, is_told

Membership = dict[str, Row]

USER_IDS = st.sampled_from(["a", "b", "B", "é", "ﬀ", "😀", "日", "u1", "u10", "u2"]) | st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3
)
ROWS = st.fixed_dictionaries(
    {"plan": st.sampled_from(["free", "pro", None]), "orders": st.integers(0, 2) | st.none()}
)
TELL = frozenset(Tell)
MEMBERSHIPS = st.dictionaries(USER_IDS, ROWS, max_size=8)


def diff(before: Membership, after: Membership) -> list[Change]:
    return [
        Change(user_id=user_id, before=before.get(user_id), after=after.get(user_id))
        for user_id in sorted(before.keys() | after.keys(), key=str.encode)
        if before.get(user_id) != after.get(user_id)
    ]


def applied(membership: Membership, changes: Iterable[Change]) -> Membership:
    result = dict(membership)
    for change in changes:
        assert result.get(change.user_id) == change.before
        if change.after is None:
            del result[change.user_id]
        else:
            result[change.user_id] = change.after
    return result


@given(MEMBERSHIPS, MEMBERSHIPS, MEMBERSHIPS)
def test_a_to_b_and_b_to_c_compose_to_a_to_c(a: Membership, b: Membership, c: Membership) -> None:
    assert list(compose_sets([diff(a, b), diff(b, c)])) == diff(a, c)


@given(st.lists(MEMBERSHIPS, min_size=1, max_size=7))
def test_any_number_of_sets_compose_to_the_net_change(states: list[Membership]) -> None:
    sets = [diff(a, b) for a, b in itertools.pairwise(states)]
    net = list(compose_sets(sets))
    assert net == diff(states[0], states[-1])
    assert applied(states[0], net) == states[-1]


@given(st.lists(MEMBERSHIPS, min_size=1, max_size=5))
def test_a_set_read_backwards_undoes_it(states: list[Membership]) -> None:
    sets = [diff(a, b) for a, b in itertools.pairwise(states)]
    back = [[change.inverse() for change in changes] for changes in reversed(sets)]
    assert list(compose_sets(back)) == diff(states[-1], states[0])
    assert list(compose_sets(sets + back)) == []


@given(st.sets(USER_IDS))
def test_text_sorts_as_its_utf8_bytes_do(user_ids: set[str]) -> None:
    assert sorted(user_ids) == sorted(user_ids, key=str.encode)


@given(MEMBERSHIPS, MEMBERSHIPS, st.sets(st.sampled_from(Tell)))
def test_with_the_same_columns_every_change_is_told_where_asked(
    a: Membership, b: Membership, tell: set[Tell]
) -> None:
    for change in diff(a, b):
        assert is_told(change, tell, Kind.AUDIENCE) is (change.kind in tell)


@given(MEMBERSHIPS, MEMBERSHIPS)
def test_of_a_computed_trait_an_update_is_told_where_the_value_alone_says_so(
    a: Membership, b: Membership
) -> None:
    def valued(rows: Membership) -> Membership:
        return {user: {"value": row["orders"], "plan": row["plan"]} for user, row in rows.items()}

    def values(rows: Membership) -> Membership:
        return {user: {"value": row["orders"]} for user, row in rows.items()}

    told = [c.user_id for c in diff(valued(a), valued(b)) if is_told(c, TELL, Kind.COMPUTED_TRAIT)]
    assert told == [change.user_id for change in diff(values(a), values(b))]
