from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from audience_sync.domain.trait_key import trait_key

NAMES = st.text() | st.text(alphabet="aB9 -_–é日.", max_size=12)


@given(NAMES)
def test_a_trait_key_holds_only_small_letters_digits_and_single_underscores(name: str) -> None:
    assert re.fullmatch(r"([a-z0-9]+(_[a-z0-9]+)*)?", trait_key(name))


@given(NAMES)
def test_the_key_of_a_key_is_the_key(name: str) -> None:
    key = trait_key(name)
    assert trait_key(key) == key


@given(st.lists(st.sampled_from(["Order", "VIP", "last", "30days"]), min_size=2))
def test_words_become_a_snake(words: list[str]) -> None:
    assert trait_key(" ".join(words)) == "_".join(words).lower()
