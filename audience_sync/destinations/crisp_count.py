"""How many requests Crisp is sent for so many members: the rule of ``crisp_member``, counted.

Nothing is asked of Crisp, so it is not known whom it has of those whom the store does not know.
Where that matters there are two numbers. All else follows from the store, and is exact as long as
nobody changes anything at Crisp meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from audience_sync.destinations.crisp_bulk import TOGETHER, looked_at_together, together
from audience_sync.destinations.crisp_cost import (
    AS_LISTED,
    Strangers,
    most_pages,
    of_known,
    of_met,
    of_stranger,
)
from audience_sync.destinations.crisp_document import Column, Document, document
from audience_sync.destinations.crisp_member import with_told
from audience_sync.destinations.crisp_people import LISTED_AGAIN
from audience_sync.destinations.crisp_sends import Foreseen, Sends
from audience_sync.domain.contact import EPOCH, Contact, Listing, Person, folded
from audience_sync.domain.requests import NONE, Amount, Requests, exactly
from audience_sync.pipeline.ports.sending import Contacts, Told

REMEMBERED = 1_000_000
"""E-mails of members whom Crisp does not have: of the second with one, it has the first."""


@dataclass(kw_only=True)
class CrispCount:
    """In memory are ``TOGETHER`` members, hashes of the e-mails of new ones, and the ids of all
    who are in a walk before the last.

    Args:
        before: requests of a process before its first member.
    """

    contacts: Contacts = field(repr=False)
    salt: str = field(repr=False)
    with_track: bool
    now: datetime
    before: int = 0
    bulk: bool = False
    quota: int | None = None
    reserve: float = 0.0
    _surely: Amount = field(init=False, default=NONE)
    _saved: int = field(init=False, default=0)
    _skipped: int = field(init=False, default=0)
    _members_left: int = field(init=False, default=0)
    _emails: set[int] = field(init=False, default_factory=set)
    _met: dict[str, int] = field(init=False, default_factory=dict)
    """Of whom an earlier walk tells, with a hash of the profile that it tells."""
    _strangers: Strangers = field(init=False, default_factory=Strangers)
    _at_least: Sends = field(init=False, default_factory=Sends)
    _at_most: Sends = field(init=False, default_factory=Sends)

    def of(self, *walks: Iterable[Sequence[Told]]) -> Requests:
        """See ``pipeline.ports.destination.Count``."""
        listing = self._listing()
        counted = 0
        for number, members in enumerate(walks, 1):
            for some in _parts(iter(members)):
                counted += self._add(some, listing, is_last=number == len(walks))
        pages = most_pages(
            members_left=self._members_left,
            known=self.contacts.known() if self._strangers.count else 0,
            strangers=self._strangers.count,
            listed=listing.page if listing else 0,
        )
        more = self._strangers.amount(pages) + exactly(self.before if counted else 0)
        in_bulk = Amount(
            # Those who may be found are in groups already.
            least=self._at_least.requests() + more.least - self._strangers.found,
            most=self._at_most.requests() + more.most,
        )
        return Requests(
            one_by_one=self._surely + more,
            with_bulk=in_bulk,
            saved=self._saved,
            skipped=self._skipped,
        )

    def _listing(self) -> Listing | None:
        found = self.contacts.listing()
        old = found and found.is_complete and self.now - found.began_at > LISTED_AGAIN
        return None if old else found

    def _add(
        self, some: Sequence[Sequence[Told]], listing: Listing | None, *, is_last: bool
    ) -> int:
        """How many of them take a request."""
        made = [(told, document(told, salt=self.salt, with_track=self.with_track)) for told in some]
        good = [(told, one) for told, one in made if isinstance(one, Document)]
        contacts = self.contacts.find([one.user_id for _, one in good])
        emails = {one.email for _, one in good if one.email and one.user_id not in contacts}
        people = self.contacts.by_email(emails) if emails else {}
        before = self._skipped
        parts = looked_at_together([d for _, d in good], quota=self.quota, reserve=self.reserve)
        ends = {part[-1].user_id for part in parts}
        for told, one in good:
            self._members_left = max(self._members_left, *(t.context.members_left for t in told))
            skipped = self._skipped
            if self._member(one, _known(one, contacts, people), told, listing):
                self._saved += len(told) - 1
            if not is_last and skipped == self._skipped:
                self._met[one.user_id] = _hash_of(one.profile())
            if one.user_id in ends:
                for sends in (self._at_least, self._at_most):
                    sends.end()
        return len(good) - (self._skipped - before)

    def _member(
        self,
        told: Document,
        contact: Contact | None,
        changes: Sequence[Told],
        listing: Listing | None,
    ) -> bool:
        """Whether anything is sent."""
        if told.user_id in self._met:
            self._again(told, contact)
            return True
        if contact is not None and contact.people_id is not None:
            self._alone(told, of_known(told, contact), contact)
            return True
        email = told.email or (contact.email if contact else None)
        if email is None:
            self._skipped += 1
            return False
        is_listed = listing is not None and listing.is_complete
        initial = any(one.context.members_left for one in changes)
        if contact is None and initial and not is_listed:
            self._may_be_listed(told)
        else:
            is_new = is_listed and contact is None and self._first_of(email)
            self._alone(told, of_stranger(told, all_listed=is_new), None)
        return not told.is_exit

    def _alone(self, told: Document, requests: Amount, contact: Contact | None) -> None:
        self._surely += requests
        parts = together(told, contact)
        people_id = contact.people_id if contact else None
        for sends, count in ((self._at_least, requests.least), (self._at_most, requests.most)):
            sends.add(Foreseen(parts=parts, people_id=people_id, requests=count))

    def _again(self, told: Document, contact: Contact | None) -> None:
        """One whom an earlier walk has met."""
        same = self._met[told.user_id] == _hash_of(told.profile())
        requests = of_met(told, contact, same_profile=same)
        profile = told.profile()
        people_id = contact.people_id if contact else None
        known = contact if contact and people_id else AS_LISTED
        parts = together(told, with_told(known, told, profile))
        self._surely += requests
        at_most = parts if requests.is_exact else ()
        for sends, its_parts, count in (
            (self._at_least, parts, requests.least),
            (self._at_most, at_most, requests.most),
        ):
            sends.add(Foreseen(parts=its_parts, people_id=people_id, requests=count))

    def _may_be_listed(self, told: Document) -> None:
        self._strangers.add(told)
        self._at_most.add(Foreseen(parts=(), people_id=None, requests=0))
        parts = together(told, with_told(AS_LISTED, told, told.profile()))
        self._at_least.add(Foreseen(parts=parts, people_id=None, requests=1 + len(told.events)))

    def _first_of(self, email: str) -> bool:
        """Whether no member before has it, as far as they are remembered."""
        key = hash(folded(email))
        if key in self._emails or len(self._emails) >= REMEMBERED:
            return False
        self._emails.add(key)
        return True


def _known(
    told: Document, contacts: Mapping[str, Contact], people: Mapping[str, Person]
) -> Contact | None:
    """Who the member is at Crisp, as far as the store knows."""
    contact = contacts.get(told.user_id)
    if contact is not None or told.email is None:
        return contact
    person = people.get(folded(told.email))
    if person is None:
        return None
    return Contact(
        user_id=told.user_id,
        people_id=person.people_id,
        email=folded(person.email),
        as_of=EPOCH,
        profile=person.profile,
    )


def _hash_of(profile: Mapping[str, Column]) -> int:
    return hash(frozenset((name, column.told.digest) for name, column in profile.items()))


def _parts(members: Iterator[Sequence[Told]]) -> Iterator[list[Sequence[Told]]]:
    while some := list(islice(members, TOGETHER)):
        yield some
