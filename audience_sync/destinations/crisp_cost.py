"""How many requests one member takes at Crisp, by what is known: ``crisp_member`` as numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from audience_sync.destinations.crisp_document import Column, Document
from audience_sync.destinations.crisp_member import due_columns
from audience_sync.destinations.crisp_people import PER_PAGE
from audience_sync.domain.contact import EPOCH, Contact, read
from audience_sync.domain.requests import Amount, exactly

MOST_PEOPLE = 1_000_000
"""Of a website. With more of them, listing takes more requests than are foreseen."""

ALL_PAGES = MOST_PEOPLE // PER_PAGE + 1

AS_LISTED = Contact(user_id="", people_id="listed", email=None, as_of=EPOCH)
"""Somebody who may be found among Crisp's people."""


def of_known(told: Document, contact: Contact) -> Amount:
    """One whose profile is known: custom data, changed columns of the profile, events."""
    changed = changed_profile(told, contact)
    requests = 1 + bool(changed) + len(told.events)
    # The e-mail may be somebody else's by now: then all but the e-mail is told once more.
    return Amount(least=requests, most=requests + ("email" in changed and len(changed) > 1))


def of_stranger(told: Document, *, all_listed: bool) -> Amount:
    """One who has an e-mail, by which we know nobody.

    Args:
        all_listed: Crisp's people are known, so it does not have this one.
    """
    events, others = len(told.events), _has_others(told)
    if told.is_exit or told.is_event:  # read, and if there is nobody, is there the website?
        return Amount(least=1, most=2 if all_listed else 2 + others + events)
    created = 2 + events
    return exactly(created) if all_listed else Amount(least=created, most=created + 1 + others)


def of_met(told: Document, contact: Contact | None, *, same_profile: bool) -> Amount:
    """One of whom an earlier walk tells, so that more is known of them by then.

    Args:
        contact: before that walk.
        same_profile: that one tells the same columns of the profile.
    """
    profile, events = told.profile(), len(told.events)
    most = 1 + bool(profile) + events + ("email" in profile and len(profile) > 1)
    if contact is not None and contact.people_id is not None:
        is_exact = same_profile and "email" not in changed_profile(told, contact)
        return Amount(least=1 + events, most=1 + events if is_exact else most)
    most = max(most, of_stranger(told, all_listed=False).most)
    surely = told.email is not None  # else it may be one who has to be skipped
    return Amount(least=surely * (1 + (0 if told.is_exit else events)), most=most)


def changed_profile(told: Document, contact: Contact) -> dict[str, Column]:
    """Columns of the profile that Crisp is to be told of."""
    known = read(contact.profile)
    return {
        name: column
        for name, column in due_columns(told.profile(), contact).items()
        if name not in known or known[name].digest != column.told.digest
    }


def most_pages(*, members_left: int, known: int, strangers: int, listed: int) -> int:
    """So many more pages of people are listed at most, as ``CrispPeople`` decides it.

    Args:
        strangers: for whom people may be listed.
        listed: pages.
    """
    if not strangers:
        return 0
    return max(min(members_left, max(members_left - known, strangers)) - listed, 0)


@dataclass(kw_only=True, slots=True)
class Strangers:
    """Those for whom Crisp's people may be listed: requests of all of them.

    ``found``: if all were there, as they are told now. ``listed``: at most, if all people were
    listed, whether they are there or not. ``unlisted``: if they were not.
    """

    count: int = 0
    found: int = 0
    listed: int = 0
    unlisted: int = 0

    def add(self, told: Document) -> None:
        events = len(told.events)
        self.count += 1
        self.found += 1 + events
        met = 1 + _has_others(told) + events
        self.listed += max(of_stranger(told, all_listed=True).most, met)
        self.unlisted += of_stranger(told, all_listed=False).most

    def amount(self, pages: int) -> Amount:
        """With the listing; ``pages``: of it, at most."""
        all_listed = pages >= ALL_PAGES
        most = ALL_PAGES + self.listed if all_listed else pages + self.unlisted
        needed = min(math.ceil(self.count / PER_PAGE), pages)
        return Amount(least=self.found + needed, most=most)


def _has_others(told: Document) -> bool:
    """Whether there is more of the profile than the e-mail by which somebody is found."""
    return bool(told.profile().keys() - {"email"})
