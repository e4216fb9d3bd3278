"""Tell Crisp of many members at once: a request for all whose custom data are to be the same.

Nobody's profile is written by it, nothing is removed by it, and it may be repeated.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from audience_sync.destinations.crisp_api import CrispApi, Outcome
from audience_sync.destinations.crisp_bulk import (
    READS,
    Batch,
    Bulk,
    as_custom_data,
    together,
)
from audience_sync.destinations.crisp_document import Document
from audience_sync.destinations.crisp_looking import Looking
from audience_sync.destinations.crisp_member import due_columns, with_told
from audience_sync.destinations.crisp_people import CrispPeople
from audience_sync.destinations.crisp_sharing import (
    FEWEST,
    Parts,
    arranged,
    counted,
    most_shared,
)
from audience_sync.destinations.crisp_website import Website
from audience_sync.domain.contact import Contact
from audience_sync.errors import BadCalls, CallsOutdated, DestinationPaused, RetryLater
from audience_sync.pipeline.ports.sending import MaySend

TRIES = 5
"""Of one request for many that nobody answers, until it is seen whether they answer another."""

NOT_LOOKED_AT = "?"
"""In the place of the digest of a column that was told; equal to none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """``members_left``: of a span that walks everybody."""

    document: Document
    members_left: int


@dataclass(kw_only=True, slots=True, eq=False)
class Together:
    """Consecutive members, of whom those who share requests are told by whichever worker first
    sends any of them. Used by several workers; what failed is gone on with where it stopped."""

    people: CrispPeople
    website: Website
    bulk: Bulk
    members: Sequence[Asked]
    known: Mapping[str, Contact]
    """Of them, as far as was known when they were looked at, by ``user_id``."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _is_done: bool = False
    _api: CrispApi = field(init=False)
    """Of the worker that tells them."""
    _waiting: CrispApi | None = None
    """Of the worker that is to try again, after a while."""
    _likely: set[str] = field(init=False)
    _requests: int = field(init=False)
    _asked_for: set[str] = field(default_factory=set)
    """Members for whom people were listed, or it was found not to be cheaper."""
    _set_already: dict[str, set[bytes]] = field(default_factory=dict)
    """By ``user_id``: the parts of their custom data that were set."""
    _told: set[str] = field(default_factory=set)
    """Who was told all, by ``user_id``."""
    _learned: dict[str, Contact] = field(default_factory=dict)
    _sent: list[Batch] = field(default_factory=list)
    _looking: Looking = field(init=False)
    _failures: int = 0
    _needed: dict[str, tuple[Contact, Parts]] = field(default_factory=dict)
    """By ``user_id``: who they are at Crisp, and what is still to be set."""
    _saved: int = 0

    def __post_init__(self) -> None:
        self._looking = Looking(people=self.people, website=self.website, bulk=self.bulk)
        needed = [(told, parts) for told, _, parts in self._sharing(self.known)]
        shared = arranged([parts for _, parts in needed])
        self._likely = {needed[place][0].user_id for one in shared for place in one.members}
        self._requests = 2 * len(shared)
        if any(one.members_left and one.document.user_id not in self.known for one in self.members):
            # They may be found among Crisp's people.
            all_told = counted(as_custom_data(one.document) for one in self.members)
            self._requests = max(self._requests, most_shared(all_told))
        self._requests = min(self._requests and self._requests + READS, len(self.members))

    def requests(self) -> int:
        """About so many, at most, are to be sent for those who share them; said once, to the thread
        that walks."""
        requests, self._requests = self._requests, 0
        return requests

    def will_tell(self, user_id: str) -> bool:
        """Whether it is likely that a member is told together with others, or was."""
        return self.told(user_id) is not None if self._is_done else user_id in self._likely

    def told(self, user_id: str) -> Contact | None:
        """Who they are now, if they were told all they need."""
        if user_id not in self._told or self._learned[user_id].people_id in self._looking.gone:
            return None
        return self._learned[user_id]

    def saved(self) -> int:
        """Requests fewer than one for each of those who were told; said once."""
        with self._lock:
            saved, self._saved = self._saved, 0
        return saved

    def tell(self, api: CrispApi, may_send: MaySend) -> None:
        """Those who share requests, unless it was done.

        Raises:
            CallsOutdated: Crisp does not do it as it should.
            RetryLater, …: see ``CrispApi.ask``.
        """
        with self._lock:
            if self._is_done:
                return
            if self._waiting not in (None, api):
                raise RetryLater("who is told together is told first", after=1.0, unsent=True)
            self._waiting = None
            if not self.bulk.is_on:
                raise CallsOutdated("told one by one by now")
            self._api = api
            try:
                self._tell(may_send)
            except RetryLater:
                self._waiting = api
                raise
            self._is_done = True

    def _tell(self, may_send: MaySend) -> None:
        self._list(may_send)
        with ExitStack() as turns:
            for user_id in sorted(one.document.user_id for one in self.members):
                turns.enter_context(self.people.turn(user_id))
            for batch in self._batches():
                self._set(batch, may_send)
                self._learn(batch)
        self._looking.look(self._api, self._sent, may_send)
        self._finish()
        asked = len(self._sent) + self._looking.requests
        told = sum(self.told(user_id) is not None for user_id in self._told)
        self._saved = max(told - asked, 0)

    def _list(self, may_send: MaySend) -> None:
        """Before they are told apart: who is unknown now may be among Crisp's people."""
        unknown = {
            one.document.user_id: one
            for one in self.members
            if one.members_left and one.document.email
        }
        pages = -1
        for user_id, one in list(unknown.items()):
            if pages != self.people.pages:
                pages = self.people.pages
                for found in self.people.known({u: o.document.email for u, o in unknown.items()}):
                    del unknown[found]
                if len(unknown) + len(self._asked_for) < FEWEST:
                    return
            if user_id not in unknown or user_id in self._asked_for:
                continue
            self._asked_for.add(user_id)
            path = self.website.path(self._api, may_send)
            if self.people.list_where_cheaper(self._api, path, one.members_left, may_send):
                return

    def _batches(self) -> Iterator[Batch]:
        """What was not set yet of those who are told together."""
        emails = {one.document.user_id: one.document.email for one in self.members}
        sharing = self._sharing(self.people.known(emails))
        self._needed = {told.user_id: (contact, parts) for told, contact, parts in sharing}
        for shared in arranged([parts for _, _, parts in sharing]):
            some = [sharing[place][:2] for place in shared.members]
            yield Batch(parts=shared.parts, data=shared.data, members=some)

    def _sharing(self, known: Mapping[str, Contact]) -> list[tuple[Document, Contact, Parts]]:
        """Whose profile is theirs alone, and who need nothing but custom data: what is left."""
        shared = Counter(contact.people_id for contact in known.values())
        found: list[tuple[Document, Contact, Parts]] = []
        for told in (one.document for one in self.members):
            contact = known.get(told.user_id)
            if contact is None or shared[contact.people_id] > 1 or told.user_id in self._told:
                continue
            if parts := together(told, contact):
                already = self._set_already.get(told.user_id, set())
                found.append((told, contact, tuple(p for p in parts if p not in already)))
        return found

    def _set(self, batch: Batch, may_send: MaySend) -> None:
        body = {"people": {"profiles": batch.people_ids}, "data": batch.data}
        path = f"{self.website.path(self._api, may_send)}/batch/data"
        try:
            answered = self._api.ask("PATCH", path, body, may_send=may_send)
        except (BadCalls, DestinationPaused) as refused:
            # If it is not only this route that is refused, the next request will tell.
            self.bulk.doubted(str(refused))
        except RetryLater as later:
            self._failures += 0 if later.slow_down or later.unsent else 1
            if self._failures < TRIES:
                raise
            self._looking.read(self._api, batch.people_ids[0], may_send)
            self.bulk.doubted(f"{later}, while other requests are answered")
        if answered.outcome is not Outcome.DONE:
            self.bulk.doubted(f"a request for many is answered as {answered.outcome}")
        self._failures = 0
        self.website.seen()
        self._sent.append(batch)

    def _learn(self, batch: Batch) -> None:
        """Within their turns: the other lane, here or on another node, must not tell anything older
        from now on (P6). What columns were told is not known until it was looked at."""
        learned: list[Contact] = []
        for told, contact in batch.members:
            self._set_already.setdefault(told.user_id, set()).update(batch.parts)
            known = self._learned.get(told.user_id, contact)
            due = due_columns(told.columns, known)
            columns = {
                name: replace(column, told=column.told._replace(digest=NOT_LOOKED_AT))
                for name, column in due.items()
                if name in batch.data
            }
            self._learned[told.user_id] = with_told(known, told, columns)
            self.people.learn(self._learned[told.user_id])
            if columns:
                learned.append(self._learned[told.user_id])
        if learned:
            self.people.keep(learned)

    def _finish(self) -> None:
        """Who was told all there is, and was looked at."""
        for told in (one.document for one in self.members):
            contact, parts = self._needed.get(told.user_id, (None, ()))
            if contact is None or not self._set_already.get(told.user_id, set()).issuperset(parts):
                continue
            known = self._learned.get(told.user_id, contact)
            due = due_columns(told.columns, known)
            self._learned[told.user_id] = with_told(known, told, due)
            self.people.learn(self._learned[told.user_id])
            self._told.add(told.user_id)
