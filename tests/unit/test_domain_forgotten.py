"""What is left of people who asked to be forgotten, and counts as if they had never been."""

from __future__ import annotations

import hashlib

import pytest

from audience_sync.domain.forgotten import (
    Forgotten,
    Kept,
    Was,
    memberships,
    reference,
    without,
    without_names,
)
from audience_sync.domain.guard import Counts

IN, OUT = Was(before=True, after=True, named=False), Was(before=False, after=False, named=False)
ENTERED, EXITED = Was(before=False, after=True), Was(before=True, after=False)


def kept(change: Was | None = None, *, base: bool | None = None, **other: bool) -> Kept:
    how = {"from_nobody": False, "whole": True} | other
    return Kept(in_base=base, change=change, **how)


def test_a_reference_is_what_the_store_is_said_to_hold() -> None:
    assert reference("s", "é") == hashlib.sha256(b"s\0\xc3\xa9").hexdigest()
    assert reference("s", "1") != reference("s1", "")


def test_the_salt_is_not_shown() -> None:
    assert "pepper" not in repr(Forgotten(salt="pepper", references=[]))


@pytest.mark.parametrize(
    ("log", "found"),
    [
        ([kept(base=True)], [IN]),
        ([kept(base=False)], [OUT]),
        ([kept(base=True, from_nobody=True, whole=False)], [ENTERED]),
        ([kept(base=True, whole=False), kept(EXITED), kept()], [IN, EXITED, OUT]),
        # The base is newer than the changes: it is read backwards.
        ([kept(whole=False), kept(ENTERED), kept(base=True)], [OUT, ENTERED, IN]),
        ([kept(whole=False), kept(), kept(EXITED), kept(base=False)], [IN, IN, EXITED, OUT]),
        # Before what is kept nobody knows.
        ([kept(whole=False), kept(whole=False, base=True)], [None, IN]),
    ],
)
def test_memberships(log: list[Kept], found: list[Was | None]) -> None:
    assert memberships(log) == found


def test_no_base_no_answer() -> None:
    with pytest.raises(ValueError, match="base"):
        memberships([kept(ENTERED)])


@pytest.mark.parametrize("was", [IN, OUT, ENTERED, EXITED, Was(before=True, after=True)])
def test_counts_add_up_without(was: Was) -> None:
    left = without(Counts(previous=5, entered=2, exited=3, updated=1, members=4), was)
    assert left.previous + left.entered - left.exited == left.members
    assert left.updated == (0 if was == Was(before=True, after=True) else 1)


def test_names_are_whole_words() -> None:
    text = "1 of 12: u.1 asked (u1), not u11"
    assert without_names(text, ["1", "u1", "u.1"]) == (
        "[forgotten] of 12: u.[forgotten] asked ([forgotten]), not u11"
    )
