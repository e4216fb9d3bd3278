"""Who is who at Crisp, as far as we know, shared by all workers of a destination.

The store learns of a contact with the position that moves over it, which is a moment after Crisp
was told. In between it is known here, to both lanes: otherwise the one that tells something older
would not know that the other has just told something newer (P6).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from audience_sync.destinations.crisp_api import CrispApi, Outcome
from audience_sync.destinations.crisp_document import PROFILE, is_email
from audience_sync.domain.contact import (
    EPOCH,
    Contact,
    Listing,
    Person,
    ToldColumn,
    digest,
    folded,
    learned,
    written,
)
from audience_sync.errors import DestinationPaused
from audience_sync.pipeline.ports.sending import Contacts, MaySend

PER_PAGE = 50
RECENT = 10_000
"""Contacts that are known here, beside those that may be on their way to the store."""

LISTED_AGAIN = timedelta(days=30)
"""A whole listing that is older is begun anew when it is needed."""


class CrispPeople:
    """Used by many threads.

    Args:
        salt: of the hashes of what people were told.
        on_their_way: how many contacts the store may not know yet.
    """

    def __init__(
        self,
        contacts: Contacts,
        *,
        salt: str,
        clock: Callable[[], datetime],
        on_their_way: int = 0,
    ) -> None:
        self._contacts = contacts
        self._kept = RECENT + on_their_way
        self._salt = salt
        self._clock = clock
        self._lock = threading.Lock()
        self._listing = threading.Lock()
        self._recent: OrderedDict[str, Contact] = OrderedDict()
        self._unknown = 0
        self._ahead = threading.local()
        self._pages = 0
        """That were listed here; under the lock of the listing."""
        self._turns: dict[str, tuple[threading.Lock, int]] = {}

    def look_ahead(self, emails: Mapping[str, str | None], *, listed: bool) -> None:
        """Read at once what this thread will ask for of each of these users, once each.

        It may be a moment old then, as it may be when it is used. Whoever tells them, in another
        thread, reads it again.

        Args:
            emails: by ``user_id``.
            listed: it will also ask ``listed`` of those who are not known.
        """
        pages = self._pages
        met = self._contacts.find(emails)
        self._ahead.met = {user_id: met.get(user_id) for user_id in emails}
        unmet = {u: email for u, email in emails.items() if u not in met} if listed else {}
        people = self._listed(unmet)
        self._ahead.listed = {user_id: people.get(user_id) for user_id in unmet}
        self._ahead.pages = pages

    def seen_ahead(self) -> dict[str, Contact]:
        """Whose profile is known, or would be found without asking Crisp, of those whom this thread
        looked at ahead."""
        ahead = vars(self._ahead)
        seen = {u: contact for u, contact in ahead["met"].items() if contact is not None}
        with self._lock:
            recent = {u: self._recent[u] for u in ahead["met"] if u in self._recent}
        for user_id, contact in recent.items():
            seen[user_id] = learned(seen.get(user_id), contact)
        known = {user_id: contact for user_id, contact in seen.items() if contact.people_id}
        return known | {
            user_id: contact
            for user_id, contact in ahead["listed"].items()
            if contact is not None and user_id not in seen
        }

    def find(self, user_id: str) -> Contact | None:
        return self._find([user_id]).get(user_id)

    def _find(self, user_ids: Collection[str]) -> dict[str, Contact]:
        ahead = vars(self._ahead).get("met", {})
        known = {u: ahead.pop(u) for u in user_ids if u in ahead}
        found = {u: contact for u, contact in known.items() if contact is not None}
        if len(known) < len(user_ids):
            found |= self._contacts.find([u for u in user_ids if u not in known])
        with self._lock:
            recent = {u: self._recent[u] for u in user_ids if u in self._recent}
        for user_id, contact in recent.items():
            found[user_id] = learned(found.get(user_id), contact)
        return found

    def known(self, emails: Mapping[str, str | None]) -> dict[str, Contact]:
        """Users whose profile is known, or would be found by their e-mail without asking Crisp.

        Args:
            emails: by ``user_id``.
        """
        met = self._find(emails)
        known = {user_id: contact for user_id, contact in met.items() if contact.people_id}
        return known | self.listed({u: email for u, email in emails.items() if u not in met})

    def listed(self, emails: Mapping[str, str | None]) -> dict[str, Contact]:
        """Users whom we never met, but find by their e-mail without asking Crisp."""
        seen = vars(self._ahead)
        ahead = seen.get("listed", {}) if seen.get("pages") == self._pages else {}
        known = {u: ahead.pop(u) for u in emails if u in ahead}
        found = {u: contact for u, contact in known.items() if contact is not None}
        return found | self._listed({u: e for u, e in emails.items() if u not in known})

    def _listed(self, emails: Mapping[str, str | None]) -> dict[str, Contact]:
        wanted = {u: folded(email) for u, email in emails.items() if email}
        people = self._contacts.by_email(set(wanted.values())) if wanted else {}
        return {u: contact_of(u, people[email]) for u, email in wanted.items() if email in people}

    def by_email(self, email: str) -> Person | None:
        return self._contacts.by_email([email]).get(folded(email))

    def learn(self, contact: Contact) -> None:
        with self._lock:
            before = self._recent.pop(contact.user_id, None)
            self._recent[contact.user_id] = learned(before, contact)
            while len(self._recent) > self._kept:
                self._recent.popitem(last=False)

    def keep(self, some: Collection[Contact]) -> None:
        """Have them in the store before a position moves over them."""
        self._contacts.keep(some)

    @contextmanager
    def turn(self, user_id: str) -> Iterator[None]:
        """One at a time tells something of a user: what is checked stays so until it is sent."""
        with self._lock:
            lock, waiting = self._turns.get(user_id, (threading.Lock(), 0))
            self._turns[user_id] = lock, waiting + 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, waiting = self._turns[user_id]
                if waiting == 1:
                    del self._turns[user_id]
                else:
                    self._turns[user_id] = lock, waiting - 1

    @property
    def pages(self) -> int:
        """That were listed here so far."""
        return self._pages

    def list_where_cheaper(
        self, api: CrispApi, website: str, members_left: int, may_send: MaySend
    ) -> bool:
        """For a member whom we do not know: list the website's people, or leave it. Whether all of
        them are listed.

        A page costs a request, and so does asking one by one for whom Crisp has already. So at most
        as many pages are listed as there are members whom we may have to ask for, and no more than
        there are. Pages are counted from the first, whoever listed them: a process that is killed
        again and again lists no more of them than one that is not.

        Args:
            members_left: of a span that walks everybody.

        Raises:
            DestinationPaused: there is no such website.
        """
        with self._listing:
            self._unknown += 1
            now_at = self._begun()
            if now_at.is_complete:
                return True
            most = min(members_left, max(members_left - self._contacts.known(), self._unknown))
            while now_at.page < most and not now_at.is_complete:
                now_at = self._list_page(api, website, now_at, may_send)
            return now_at.is_complete

    def _begun(self) -> Listing:
        now = self._clock()
        found = self._contacts.listing()
        if found is None or (found.is_complete and now - found.began_at > LISTED_AGAIN):
            return Listing(page=0, is_complete=False, began_at=now)
        return found

    def _list_page(
        self, api: CrispApi, website: str, now_at: Listing, may_send: MaySend
    ) -> Listing:
        page = now_at.page + 1
        people = people_of(api, website, page, may_send)
        known = [person for one in people if (person := self.person(one)) is not None]
        listing = Listing(page=page, is_complete=not people, began_at=now_at.began_at)
        self._contacts.keep_page(known, listing)
        self._pages += 1  # whom somebody has looked for before may be among them
        return listing

    def person(self, profile: object) -> Person | None:
        """A profile as Crisp shows it; ``None``: it has no e-mail, or is none."""
        if not isinstance(profile, Mapping):
            return None
        people_id, email = profile.get("people_id"), profile.get("email")
        if not isinstance(people_id, str) or not isinstance(email, str):
            return None
        if not people_id or not is_email(email):
            return None
        columns = {"email": folded(email)}
        card = profile.get("person")
        for column, field in PROFILE.items():
            value = card.get(field) if isinstance(card, Mapping) else None
            if column != "email" and isinstance(value, str) and value:
                columns[column] = value
        told = {c: ToldColumn(digest(self._salt, c, v), None) for c, v in columns.items()}
        return Person(email=email, people_id=people_id, profile=written(told))


def contact_of(user_id: str, person: Person) -> Contact:
    """A user who is this person."""
    return Contact(
        user_id=user_id,
        people_id=person.people_id,
        email=folded(person.email),
        as_of=EPOCH,
        profile=person.profile,
    )


def people_of(api: CrispApi, website: str, page: int, may_send: MaySend) -> list[Any]:
    """One page of a website's people; nobody after the last one.

    Raises:
        DestinationPaused: there is no such website.
    """
    path = f"{website}/people/profiles/{page}?per_page={PER_PAGE}"
    answered = api.ask("GET", path, may_send=may_send)
    if answered.outcome is not Outcome.DONE or not isinstance(answered.data, list):
        raise DestinationPaused(
            f"{api.name}: Crisp does not list the people of the website",
            hint="check `website_id`, and that the key may read people",
        )
    return answered.data
