from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from audience_sync.domain.message_id import canonical, message_id

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = TEXT | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
BODIES = st.dictionaries(TEXT, VALUES | st.dictionaries(TEXT, VALUES, max_size=3), max_size=4)
TRANSITIONS = st.tuples(BODIES.map(canonical), TEXT, TEXT, TEXT, st.integers(1, 12))


def identity(transition: tuple[bytes, str, str, str, int]) -> str:
    body, installation, destination, audience, number = transition
    return message_id(
        body,
        installation=installation,
        destination=destination,
        audience=audience,
        span_number=number,
    )


@given(TRANSITIONS)
def test_an_id_fits_into_segments_hundred_characters(
    transition: tuple[bytes, str, str, str, int],
) -> None:
    assert len(identity(transition)) <= 100
    assert identity(transition).isascii()


@given(st.lists(TRANSITIONS, max_size=6))
def test_two_transitions_share_an_id_only_when_they_are_the_same(
    transitions: list[tuple[bytes, str, str, str, int]],
) -> None:
    assert len({identity(one) for one in transitions}) == len(set(transitions))


@given(TEXT, TEXT, st.integers(0, 16), st.integers(0, 16))
def test_where_one_part_ends_and_the_next_begins_matters(
    one: str, other: str, cut: int, other_cut: int
) -> None:
    whole = one + other
    splits = {(whole[:at], whole[at:]) for at in (cut, other_cut)}
    assert len({identity((b"", *split, "vip", 1)) for split in splits}) == len(splits)


@given(BODIES)
def test_canonical_says_the_same_as_the_body(body: dict[str, object]) -> None:
    assert json.loads(canonical(body)) == body
    assert canonical(dict(reversed(body.items()))) == canonical(body)
