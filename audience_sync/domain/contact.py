"""Contacts: which of a destination's people is which user, and how old what it was told is (P6)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from audience_sync.domain.audience import Value

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


class ToldColumn(NamedTuple):
    """What was told last of one carried column: a hash of its value, and its cycle time.

    ``None``: the destination has it of somebody else, so any cycle time is newer.
    """

    digest: str
    at: datetime | None


Profile = Mapping[str, ToldColumn]
"""By column."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contact:
    """What we know of a user at a destination that has people of its own."""

    user_id: str
    people_id: str | None
    """``None``: known by e-mail only."""
    email: str | None
    """As ``folded`` gives it."""
    as_of: datetime
    """Cycle time of the newest columns that were told."""
    profile: str = ""
    """``written`` of its columns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Somebody whom the destination has, as it lists them. ``profile``: see ``Contact``."""

    email: str
    people_id: str
    profile: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """How far the destination's people are listed."""

    page: int
    """The last one that is stored; pages begin at 1."""
    is_complete: bool
    began_at: datetime


def folded(email: str) -> str:
    """One spelling of an address; nobody tells apart people by the case of their e-mail."""
    return email.strip().lower()


def digest(salt: str, column: str, value: Value) -> str:
    """What tells two values of a column apart, and from which none can be read."""
    text = "" if value is None else f"{type(value).__name__}\0{value}"
    data = "\0".join((salt, column, text)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=6).hexdigest()


def written(profile: Profile) -> str:
    """As it is stored: ``email=9f8b…@1791352800000 name=…``, in the order of the columns."""
    return " ".join(
        f"{column}={told.digest}@{'' if told.at is None else (told.at - EPOCH) // MILLISECOND}"
        for column, told in sorted(profile.items())
    )


def read(text: str) -> dict[str, ToldColumn]:
    """The reverse of ``written``. No column has a space or an equals sign in its name."""
    found = {}
    for part in text.split():
        column, _, told = part.partition("=")
        value, _, at = told.partition("@")
        found[column] = ToldColumn(value, EPOCH + int(at) * MILLISECOND if at else None)
    return found


def newer(one: ToldColumn, than: ToldColumn) -> bool:
    """Whether ``one`` may be told where ``than`` was."""
    return than.at is None or (one.at is not None and one.at >= than.at)


def merged(profiles: Iterable[Profile]) -> dict[str, ToldColumn]:
    """Of each column the newest; of those of one time, the last."""
    found: dict[str, ToldColumn] = {}
    for profile in profiles:
        for column, told in profile.items():
            if column not in found or newer(told, found[column]):
                found[column] = told
    return found


def learned(stored: Contact | None, contact: Contact) -> Contact:
    """What to store of a contact that was just met, while another lane may have met it too.

    Who it is, is as the destination said last. What it was told is of each column the newest.
    """
    if stored is None:
        return contact
    before = read(stored.profile) if stored.people_id == contact.people_id else {}
    after = read(contact.profile)
    profile = merged([before, after])
    told = profile.get("email")
    email = contact.email
    if told is not None and told != after.get("email"):
        email = stored.email
    return replace(
        contact,
        email=email or stored.email,
        as_of=max(stored.as_of, contact.as_of),
        profile=written(profile),
    )
