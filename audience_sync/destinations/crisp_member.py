"""Tell Crisp of one member, in as few requests as there can be.

Of whom we know the profile: custom data (1), and the profile's own columns where they changed (2).
Of whom we do not: the profile is created (1), then custom data (2); whom Crisp has already is read
once. Events come last, so that what is repeated after a failure is what may be repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from audience_sync.destinations.crisp_api import Answered, CrispApi, Method, Outcome, encoded
from audience_sync.destinations.crisp_document import PROFILE, Column, Document
from audience_sync.destinations.crisp_people import CrispPeople, contact_of
from audience_sync.destinations.crisp_website import Website
from audience_sync.domain.contact import Contact, Person, folded, newer, read, written
from audience_sync.domain.span import Refusal
from audience_sync.errors import BadCalls, RetryLater
from audience_sync.pipeline.ports.sending import MaySend, MemberCalls

NO_EMAIL = "email is required to create a Crisp profile"
NOBODY_LEFT = "Crisp has nobody to be told that they have left"
NEVER_IDENTIFIED = "the user was never identified at Crisp: the event is dropped"
UNREACHABLE = "Crisp has a profile with this e-mail, but does not find it"
EMAIL_TAKEN = "another Crisp profile has this e-mail; all else was told"


@dataclass(frozen=True, kw_only=True, slots=True)
class CrispCalls(MemberCalls):
    """What a member is told; the requests depend on what Crisp has of them by then."""

    document: Document
    members_left: int
    """Of a span that walks everybody."""


@dataclass(kw_only=True, slots=True)
class Progress:
    """What was done of one member; a repeated try goes on after it.

    ``lost``: the contact whose profile Crisp has no more; looked up again once, in no loop.
    """

    contact: Contact | None = None
    lost: Contact | None = None
    data_told: bool = False
    events_told: int = 0
    is_done: bool = False
    refusal: Refusal | None = None


@dataclass(kw_only=True, slots=True)
class Telling:
    """``progress.contact`` is what is known of the member in the end, ``None``: nothing new."""

    api: CrispApi
    people: CrispPeople
    website: Website
    calls: CrispCalls
    progress: Progress
    may_send: MaySend

    @property
    def document(self) -> Document:
        return self.calls.document

    def tell(self) -> Refusal | None:
        """Why the member was refused.

        Raises:
            BadCalls, RetryLater, …: see ``CrispApi.ask``.
        """
        if self.progress.contact is None:
            known = self.progress.lost or self.people.find(self.document.user_id)
            if known is None or known.people_id is None:
                found = self._found_or_created(known)
                if isinstance(found, Refusal):
                    self.progress.contact = self.progress.lost
                    return found
                known = found
            self.progress.contact = known
        if not self.progress.data_told and not self._data_told(self.progress.contact):
            return self._looked_up_again(self.progress.contact)
        self.progress.data_told = True
        outcome = self._profile_told(self.progress.contact)
        if outcome is Outcome.MISSING:
            return self._looked_up_again(self.progress.contact)
        self._events_told()
        return self._refusal(EMAIL_TAKEN) if outcome is Outcome.TAKEN else None

    def _data_told(self, contact: Contact) -> bool:
        """Custom data: traits, and carried columns unless what Crisp has is newer."""
        due = due_columns(self.document.custom(), contact)
        values = {name: column.value for name, column in due.items()}
        values |= {"user_id": self.document.user_id, **self.document.traits}
        if self.document.is_event:
            answered = self._person("HEAD", "profile", contact)
        else:
            answered = self._person("PATCH", "data", contact, {"data": values})
        if answered.outcome is Outcome.MISSING:
            return False
        if answered.outcome is Outcome.TAKEN:
            raise BadCalls("custom data refused (409)")
        self.progress.contact = with_told(contact, self.document, due)
        return True

    def _profile_told(self, contact: Contact) -> Outcome:
        """Profile columns that are new to Crisp, unless what it has is newer."""
        due, known = due_columns(self.document.profile(), contact), read(contact.profile)
        changed = {
            name: column
            for name, column in due.items()
            if name not in known or known[name].digest != column.told.digest
        }
        outcome = self._patched(contact, changed)
        if outcome is Outcome.TAKEN:
            del due["email"]
            del changed["email"]
            self._patched(contact, changed)
        if outcome is not Outcome.MISSING:
            self.progress.contact = with_told(contact, self.document, due)
        return outcome

    def _patched(self, contact: Contact, columns: Mapping[str, Column]) -> Outcome:
        if not columns:
            return Outcome.DONE
        outcome = self._person("PATCH", "profile", contact, card(columns)).outcome
        if outcome is Outcome.TAKEN and "email" not in columns:
            raise BadCalls("profile refused (409)")
        return outcome

    def _events_told(self) -> None:
        assert self.progress.contact is not None
        for event in self.document.events[self.progress.events_told :]:
            self._person("POST", "events", self.progress.contact, event)
            self.progress.events_told += 1

    def _found_or_created(self, known: Contact | None) -> Contact | Refusal:
        """A contact for a user whose profile is not known, or is lost."""
        email = self.document.email or (known.email if known else None)
        if email is None:
            return self._refusal(NO_EMAIL, skipped=True)
        person = self._listed(email) if known is None else None
        if person is not None:
            return self._of_person(person)
        if self.document.is_exit or self.document.is_event:
            return self._found(email)
        return self._created(email)

    def _found(self, email: str) -> Contact | Refusal:
        """Nobody is created to be told that they have left."""
        person = self._read(email)
        if person is not None:
            return self._of_person(person)
        # It may be the website that is not there, which is another matter.
        self.website.check(self.api, self.may_send)
        reason = NEVER_IDENTIFIED if self.document.is_event else NOBODY_LEFT
        return self._refusal(reason, skipped=True)

    def _created(self, email: str) -> Contact | Refusal:
        columns = self.document.profile()
        body = card(columns) | {"email": email}
        body["person"] = {"nickname": email.partition("@")[0]} | body.get("person", {})
        answered = self._ask("POST", "people/profile", body)
        if answered.outcome is Outcome.TAKEN:
            person = self._read(email)
            return self._refusal(UNREACHABLE) if person is None else self._of_person(person)
        people_id = answered.text("people_id")
        if not people_id:
            raise RetryLater("Crisp created a profile, but did not say which")
        new = Contact(
            user_id=self.document.user_id,
            people_id=people_id,
            email=folded(email),
            as_of=self.document.as_of,
        )
        return with_told(new, self.document, columns)

    def _looked_up_again(self, contact: Contact) -> Refusal | None:
        """Crisp does not know the profile any more; asked by e-mail, once."""
        lost_before, self.progress.data_told = self.progress.lost, False
        self.progress.lost = replace(contact, people_id=None, profile="")
        if lost_before is not None:
            self.progress.contact = self.progress.lost
            return self._refusal(UNREACHABLE)
        self.progress.contact = None
        return self.tell()

    def _listed(self, email: str) -> Person | None:
        """Whom we know by the e-mail; where that is cheaper, after listing Crisp's people."""
        person = self.people.by_email(email)
        if person is None and self.calls.members_left:
            path = self.website.path(self.api, self.may_send)
            self.people.list_where_cheaper(self.api, path, self.calls.members_left, self.may_send)
            person = self.people.by_email(email)
        return person

    def _read(self, email: str) -> Person | None:
        answered = self._ask("GET", f"people/profile/{encoded(email)}")
        return self.people.person(answered.data) if answered.outcome is Outcome.DONE else None

    def _of_person(self, person: Person) -> Contact:
        return contact_of(self.document.user_id, person)

    def _person(
        self, method: Method, what: str, contact: Contact, body: Mapping[str, Any] | None = None
    ) -> Answered:
        assert contact.people_id is not None
        return self._ask(method, f"people/{what}/{encoded(contact.people_id)}", body)

    def _ask(self, method: Method, path: str, body: Mapping[str, Any] | None = None) -> Answered:
        website = self.website.path(self.api, self.may_send)
        answered = self.api.ask(method, f"{website}/{path}", body, may_send=self.may_send)
        if answered.outcome is not Outcome.MISSING:
            self.website.seen()
        return answered

    def _refusal(self, reason: str, *, skipped: bool = False) -> Refusal:
        return Refusal(user_id=self.document.user_id, reason=reason, skipped=skipped)


def due_columns(columns: Mapping[str, Column], contact: Contact) -> dict[str, Column]:
    """Those that are as new as what Crisp was told of them, or newer."""
    known = read(contact.profile)
    return {
        name: column
        for name, column in columns.items()
        if name not in known or newer(column.told, known[name])
    }


def with_told(contact: Contact, document: Document, columns: Mapping[str, Column]) -> Contact:
    """``contact`` after ``columns`` were told."""
    profile = read(contact.profile) | {name: column.told for name, column in columns.items()}
    email = folded(str(columns["email"].value)) if "email" in columns else contact.email
    as_of = max(contact.as_of, document.as_of)
    return replace(contact, email=email, profile=written(profile), as_of=as_of)


def card(columns: Mapping[str, Column]) -> dict[str, Any]:
    """A profile as Crisp takes it."""
    values = {PROFILE[name]: column.value for name, column in columns.items()}
    made = {"email": values.pop("email")} if "email" in values else {}
    return made | ({"person": values} if values else {})
