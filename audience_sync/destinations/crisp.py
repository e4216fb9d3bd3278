"""Crisp's REST API: Identify and Track on the people of one website (docs.crisp.chat)."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime

from audience_sync.destinations.credential import Credential, same
from audience_sync.destinations.crisp_api import CrispApi, Tier
from audience_sync.destinations.crisp_bulk import TOGETHER, Bulk, looked_at_together
from audience_sync.destinations.crisp_count import CrispCount
from audience_sync.destinations.crisp_document import (
    KEY,
    Document,
    document,
    document_by_hand,
    email_of,
    unusable,
)
from audience_sync.destinations.crisp_member import NEVER_IDENTIFIED, NO_EMAIL, CrispCalls
from audience_sync.destinations.crisp_people import CrispPeople, people_of
from audience_sync.destinations.crisp_sender import BulkMeter, CrispSender, sharing
from audience_sync.destinations.crisp_together import Asked, Together
from audience_sync.destinations.crisp_website import ASKED_FOR_WEBSITE, Website
from audience_sync.destinations.transport import Transport
from audience_sync.domain.audience import Kind, Tell
from audience_sync.domain.by_hand import ByHand
from audience_sync.domain.contact import Contact
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Refusal
from audience_sync.domain.track import event_of
from audience_sync.pipeline.ports.sending import (
    Contacts,
    EachByItself,
    MemberCalls,
    Meter,
    Told,
    at_once,
)


@dataclass(kw_only=True, slots=True, eq=False)
class CrispDestination:
    """A ``Destination``: rate, quota and cost are in requests, of which each member needs a few.

    Args:
        api_key: ``identifier:key``.
        website_id: ``None``: the only one that the key is for.
        salt: of the hashes of what people were told.
        reread: the key as it is configured now, asked for when Crisp refused this one.
        ssl_context: whom to trust, if not the usual authorities.
    """

    name: str
    api_key: str = field(repr=False)
    endpoint: str
    tier: Tier
    website_id: str | None
    fingerprint: str
    contacts: Contacts = field(repr=False)
    salt: str = field(repr=False)
    rate: float
    reserve: float
    concurrency: int
    clock: Callable[[], datetime] = field(repr=False)
    quota: int | None = None
    with_track: bool = False
    unit: str = "request"
    bundles: bool = True
    bulk: bool = False
    """Many members in one request, where they are told the same."""
    max_bytes: int = 1
    deadline: float = 10.0
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    reread: Callable[[], str | None] = field(default=same, repr=False)
    _credential: Credential = field(init=False, repr=False)
    _people: CrispPeople = field(init=False, repr=False)
    _website: Website = field(init=False, repr=False)
    _bulk: Bulk = field(init=False, repr=False)
    _ahead: threading.local = field(init=False, repr=False, default_factory=threading.local)
    """The members whose ``calls`` this thread asks for next."""

    def __post_init__(self) -> None:
        self._credential = Credential(self.api_key, self.reread)
        self._bulk = Bulk(name=self.name, wanted=self.bulk, clock=self.clock)
        self._people = CrispPeople(
            self.contacts,
            salt=self.salt,
            clock=self.clock,
            on_their_way=len(Lane) * self.concurrency * TOGETHER if self.bulk else 0,
        )
        self._website = Website(self.name, self.website_id, self.contacts)

    @property
    def max_calls(self) -> int:
        """Of members. Told one by one, one who is sent again takes nobody along."""
        return TOGETHER if self._bulk.is_on else 1

    def meter(self) -> Meter:
        return BulkMeter() if self.bulk else EachByItself()

    def look_ahead(self, members: Sequence[Sequence[Told]]) -> None:
        emails = {told[0].change.user_id: email_of(told) for told in members}
        self._people.look_ahead(emails, listed=self._bulk.is_on)
        self._ahead.together = self._together(members) if self._bulk.is_on else {}

    def _together(self, members: Sequence[Sequence[Told]]) -> Mapping[str, Together]:
        """By ``user_id``."""
        left = {told[0].change.user_id: members_left(told) for told in members}
        made = [one for told in members if isinstance(one := self._document(told), Document)]
        found: dict[str, Together] = {}
        known = self._people.seen_ahead()
        for some in looked_at_together(made, quota=self.quota, reserve=self.reserve):
            together = Together(
                people=self._people,
                website=self._website,
                bulk=self._bulk,
                members=[Asked(document=one, members_left=left[one.user_id]) for one in some],
                known={one.user_id: known[one.user_id] for one in some if one.user_id in known},
            )
            found |= dict.fromkeys((one.user_id for one in some), together)
        return found

    def calls(self, told: Sequence[Told]) -> MemberCalls | Refusal:
        made = self._document(told)
        user_id, ahead = told[0].change.user_id, vars(self._ahead).get("together", {})
        together = ahead.get(user_id) if self._bulk.is_on else None
        return self._calls(user_id, made, members_left(told), together)

    def _document(self, told: Sequence[Told]) -> Document | str:
        return document(told, salt=self.salt, with_track=self.with_track)

    def by_hand(self, call: ByHand, installation: str) -> MemberCalls | Refusal:
        return self._calls(call.user_id, document_by_hand(call, salt=self.salt), 0)

    def _calls(
        self, user_id: str, made: Document | str, left: int, shared: Together | None = None
    ) -> MemberCalls | Refusal:
        if isinstance(made, str):
            return Refusal(user_id=user_id, reason=made)
        contact = self._people.find(user_id)
        if made.email is None and (contact is None or not (contact.people_id or contact.email)):
            reason = NEVER_IDENTIFIED if made.is_event else NO_EMAIL
            return Refusal(user_id=user_id, reason=reason, skipped=True)
        if shared is not None:
            contact = contact or self._people.listed({user_id: made.email}).get(user_id)
        calls = CrispCalls(
            user_id=user_id,
            bodies=(b"",),
            requests=most_requests(made, contact),
            document=made,
            members_left=left,
        )
        return calls if shared is None else sharing(calls, shared)

    def calls_per_change(self, change: Tell, kind: Kind) -> int:
        """Of a member whose profile is known, and did not change."""
        return 2 if self.with_track and event_of(change, kind) else 1

    def refuses(self, columns: Sequence[str]) -> list[str]:
        """Why Crisp cannot be told of some of the columns of a query."""
        return [unusable(name) for name in columns if not KEY.match(name)]

    def count(self) -> CrispCount:
        return CrispCount(
            contacts=self.contacts,
            salt=self.salt,
            with_track=self.with_track,
            now=self.clock(),
            before=0 if self.website_id or self.contacts.website() else ASKED_FOR_WEBSITE,
            bulk=self._bulk.is_on,
            quota=self.quota,
            reserve=self.reserve,
        )

    def sender(self) -> CrispSender:
        return CrispSender(api=self._api(), people=self._people, website=self._website)

    def reach(self) -> None:
        """Return when Crisp answers, takes the key, and has the website; writes nothing.

        Raises:
            CredentialsRefused, ConfigError, DestinationPaused: a person must look.
            RetryLater: no answer.
        """
        with closing(self._api()) as api:
            people_of(api, self._website.path(api, at_once, keep=False), 1, at_once)

    def _api(self) -> CrispApi:
        return CrispApi(
            name=self.name,
            endpoint=self.endpoint,
            tier=self.tier,
            credential=self._credential,
            transport=Transport(
                name=self.name,
                headers={},
                deadline=self.deadline,
                clock=self.clock,
                ssl_context=self.ssl_context,
            ),
            clock=self.clock,
        )


def members_left(told: Sequence[Told]) -> int:
    return max(one.context.members_left for one in told)


def most_requests(told: Document, contact: Contact | None) -> int:
    """What a member needs at most, if nobody changed anything at Crisp meanwhile."""
    has_columns = bool(told.profile())
    if contact is not None and contact.people_id is not None:
        return 1 + has_columns + len(told.events)
    return 2 + has_columns + len(told.events)
