"""One worker that tells Crisp of members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from audience_sync.destinations.crisp_api import CrispApi
from audience_sync.destinations.crisp_bulk import REPEATED
from audience_sync.destinations.crisp_member import CrispCalls, Progress, Telling
from audience_sync.destinations.crisp_people import CrispPeople
from audience_sync.destinations.crisp_together import Together
from audience_sync.destinations.crisp_website import Website
from audience_sync.domain.contact import Contact
from audience_sync.domain.span import Refusal
from audience_sync.errors import BadCalls
from audience_sync.pipeline.ports.sending import MaySend, MemberCalls, Sent, at_once


@dataclass(frozen=True, kw_only=True, slots=True)
class SharingCalls(CrispCalls):
    """Of one who may be told by requests for many."""

    together: Together = field(compare=False, repr=False)
    is_likely: bool
    """Else alone, as far as is known before anybody is asked."""
    shared_requests: int = 0
    """Of all of ``together``, with the first of them."""


def sharing(calls: CrispCalls, shared: Together) -> SharingCalls:
    is_likely = shared.will_tell(calls.user_id)
    return SharingCalls(
        user_id=calls.user_id,
        bodies=calls.bodies,
        requests=1 if is_likely else calls.requests,
        document=calls.document,
        members_left=0,  # it is ``shared`` that lists people, for all of them
        together=shared,
        is_likely=is_likely,
        shared_requests=shared.requests(),
    )


class BulkMeter:
    """A ``Meter``."""

    def __init__(self) -> None:
        self._alone = self._shared = 0
        self._together: set[int] = set()

    def add(self, calls: MemberCalls) -> int:
        if isinstance(calls, SharingCalls):
            self._together.add(id(calls.together))
            self._shared += calls.shared_requests
        if not (isinstance(calls, SharingCalls) and calls.is_likely):
            self._alone += calls.cost
        return self._alone + self._shared

    @property
    def is_full(self) -> bool:
        return self._alone > REPEATED or len(self._together) > 1


class CrispSender:
    """A ``Sender``: one worker's connection."""

    def __init__(self, *, api: CrispApi, people: CrispPeople, website: Website) -> None:
        self._api = api
        self._people = people
        self._website = website
        self._progress: list[tuple[CrispCalls, Progress]] = []

    def send(self, members: Sequence[MemberCalls], may_send: MaySend = at_once) -> Sent:
        """Tell each; what one is refused for says nothing of the others.

        A member who comes again after a failure is gone on with where it stopped.
        """
        taken_up = self._taken_up(members)
        shared = {id(c.together): c.together for c, _ in taken_up if isinstance(c, SharingCalls)}
        for some in shared.values():
            some.tell(self._api, may_send)
        refusals: list[Refusal] = []
        contacts: list[Contact] = []
        for calls, progress in taken_up:
            contact, refusal = self._tell(calls, progress, may_send)
            if refusal is not None:
                refusals.append(refusal)
            if contact is not None:
                contacts.append(contact)
        self._progress = []
        saved = sum(some.saved() for some in shared.values())
        return Sent(refusals=refusals, contacts=contacts, saved=saved)

    def _taken_up(self, members: Sequence[MemberCalls]) -> Sequence[tuple[CrispCalls, Progress]]:
        before = {id(calls): progress for calls, progress in self._progress}
        made = crisp_calls(members)
        self._progress = [(calls, before.get(id(calls), Progress())) for calls in made]
        return self._progress

    def _tell(
        self, calls: CrispCalls, progress: Progress, may_send: MaySend
    ) -> tuple[Contact | None, Refusal | None]:
        if isinstance(calls, SharingCalls) and (told := calls.together.told(calls.user_id)):
            return told, None
        if progress.is_done:
            return progress.contact, progress.refusal
        with self._people.turn(calls.user_id):
            telling = Telling(
                api=self._api,
                people=self._people,
                website=self._website,
                calls=calls,
                progress=progress,
                may_send=may_send,
            )
            try:
                progress.refusal = telling.tell()
            except BadCalls as refused:
                progress.refusal = Refusal(user_id=calls.user_id, reason=str(refused))
            progress.is_done = True
            if progress.contact is not None:
                self._people.learn(progress.contact)
                if isinstance(calls, SharingCalls):  # the position moves when more were told
                    self._people.keep([progress.contact])
        return progress.contact, progress.refusal

    def close(self) -> None:
        self._api.close()


def crisp_calls(members: Sequence[MemberCalls]) -> list[CrispCalls]:
    made = [calls for calls in members if isinstance(calls, CrispCalls)]
    assert len(made) == len(members)
    return made
