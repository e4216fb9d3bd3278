"""People who asked to be forgotten, remembered without their ids."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from audience_sync.domain.guard import Counts

REASON = "asked to be forgotten"
"""Why their rows are refused. That is their wish, and no fault of the source."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forgotten:
    """``references``: of everyone who asked. Only who has an id can find out whether it is one."""

    salt: str = field(repr=False)
    references: Sequence[str]


def reference(salt: str, user_id: str) -> str:
    """SHA-256 of salt, NUL and id, in hex: SQL over a source's rows makes the same."""
    return hashlib.sha256(f"{salt}\0{user_id}".encode()).hexdigest()


def without_names(text: str, names: Collection[str]) -> str:
    """``text`` as it may be kept: words that are one of the names are left out, in any case."""
    for name in names:
        word = rf"(?<!\w){re.escape(name)}(?!\w)"
        text = re.sub(word, "[forgotten]", text, flags=re.IGNORECASE)
    return text


@dataclass(frozen=True, kw_only=True, slots=True)
class Was:
    """Whether a user was a member before a snapshot, and is one after it.

    ``named``: the snapshot's changes have a row of the user.
    """

    before: bool
    after: bool
    named: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What is stored of one snapshot of an audience, and what it says of one user.

    ``from_nobody``: there were no members before it. ``whole``: its changes are stored.
    ``in_base``: ``None`` without a base.
    """

    from_nobody: bool
    whole: bool
    in_base: bool | None
    change: Was | None


def memberships(log: Sequence[Kept]) -> list[Was | None]:
    """What a user was at each snapshot of ``log``, oldest first; ``None``: no longer known.

    One base is enough, as changes are read in both directions. Who is found in the oldest base
    may have been a member before, or not: nobody can tell, so nothing changed there.

    Raises:
        ValueError: no base is kept.
    """
    anchor = max((i for i, kept in enumerate(log) if kept.in_base is not None), default=None)
    if anchor is None:
        raise ValueError("no base is kept")
    found: list[Was | None] = [None] * len(log)
    state = bool(log[anchor].in_base)
    for i in range(anchor, -1, -1):
        found[i] = was = _was(log[i], state)
        if not log[i].whole:
            break
        state = was.before
    state = bool(log[anchor].in_base)
    for i in range(anchor + 1, len(log)):
        change = log[i].change
        found[i] = was = change or Was(before=state, after=state, named=False)
        state = was.after
    return found


def _was(kept: Kept, after: bool) -> Was:
    if kept.change is not None:
        return kept.change
    if kept.from_nobody:
        return Was(before=False, after=after)
    return Was(before=after, after=after, named=False)


def without(counts: Counts, was: Was) -> Counts:
    """The counts of a snapshot as if one user had never been; they still add up."""
    return Counts(
        previous=counts.previous - was.before,
        entered=counts.entered - (was.after and not was.before),
        exited=counts.exited - (was.before and not was.after),
        updated=counts.updated - (was.named and was.before and was.after),
        members=counts.members - was.after,
    )
