"""Look at people of requests for many: whether they show what they were told."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from audience_sync.destinations.crisp_api import Answered, CrispApi, Outcome, encoded
from audience_sync.destinations.crisp_bulk import Batch, Bulk, Sample
from audience_sync.destinations.crisp_document import NOTHING
from audience_sync.destinations.crisp_people import CrispPeople
from audience_sync.destinations.crisp_sharing import Parts
from audience_sync.destinations.crisp_website import Website
from audience_sync.domain.contact import newer, read
from audience_sync.errors import BadCalls, DestinationPaused, RetryLater
from audience_sync.pipeline.ports.sending import MaySend

SECOND_LOOK = 10.0
"""Seconds: answers to reads are cached for a while."""

MISSING = 3
"""People of one sample who are not there: more than a few whom somebody deleted."""


@dataclass(kw_only=True, slots=True, eq=False)
class Looking:
    """At the requests of one ``Together``. A repeated ``look`` goes on where the one before
    stopped."""

    people: CrispPeople
    website: Website
    bulk: Bulk
    gone: set[str] = field(default_factory=set)
    """People who were not there when they were looked at."""
    _to_look_at: deque[Sample] | None = None
    _seen: set[tuple[Parts, str]] = field(default_factory=set)
    """What people show of what they were told."""
    _doubtful: set[tuple[Parts, str]] = field(default_factory=set)
    """What they did not, and is looked at once more."""

    @property
    def requests(self) -> int:
        """That were needed so far."""
        return len(self._seen) + len(self.gone)

    def look(self, api: CrispApi, batches: Sequence[Batch], may_send: MaySend) -> None:
        """At samples of ``batches``, all of which were sent.

        Raises:
            CallsOutdated: they do not show it.
            RetryLater: not yet, or no answer.
        """
        if self._to_look_at is None:
            self._to_look_at = deque(self.bulk.samples(batches))
        while self._to_look_at:
            self._look_at(api, self._to_look_at[0], may_send)
            self._to_look_at.popleft()

    def read(self, api: CrispApi, people_id: str, may_send: MaySend) -> Answered:
        """A person's custom data."""
        path = f"{self.website.path(api, may_send)}/people/data/{encoded(people_id)}"
        return api.ask("GET", path, may_send=may_send)

    def _look_at(self, api: CrispApi, sample: Sample, may_send: MaySend) -> None:
        """Until enough of them show what they were told; nobody is asked for again who did."""
        people_ids, parts = {*sample.people_ids}, sample.batch.parts
        for people_id in sample.people_ids:
            if sum((parts, one) in self._seen for one in people_ids) >= sample.count:
                return
            if people_id in self.gone or (parts, people_id) in self._seen:
                continue
            try:
                answered = self.read(api, people_id, may_send)
            except (BadCalls, DestinationPaused) as refused:
                self.bulk.doubted(f"what was told together cannot be looked at: {refused}")
            self.bulk.was_read(people_id)
            if answered.outcome is Outcome.DONE:
                self._judge(api.name, people_id, answered, sample.batch)
                continue
            self.gone.add(people_id)
            if len(self.gone & people_ids) == MISSING:
                self.bulk.doubted(f"{api.name}: people who were told together are not there")

    def _judge(self, name: str, people_id: str, answered: Answered, batch: Batch) -> None:
        told = batch.parts, people_id
        if shows(answered.data, self._still_told(people_id, batch)):
            self._seen.add(told)
            return
        if told in self._doubtful:
            self.bulk.doubted(f"{name}: people who were told together do not show it")
        self._doubtful.add(told)
        raise RetryLater(f"{name}: does not show yet what it was told", after=SECOND_LOOK)

    def _still_told(self, people_id: str, batch: Batch) -> Mapping[str, Any]:
        """Without columns that the other lane has told anew meanwhile."""
        (document,) = [told for told, contact in batch.members if contact.people_id == people_id]
        contact = self.people.find(document.user_id)
        now = read(contact.profile) if contact else {}
        return {
            name: value
            for name, value in batch.data.items()
            if name not in document.columns
            or name not in now
            or newer(document.columns[name].told, now[name])
        }


def shows(answer: Any, data: Mapping[str, Any]) -> bool:
    """Whether a person's custom data have ``data`` among them; what is empty may be absent."""
    found = answer.get("data") if isinstance(answer, Mapping) else None
    return isinstance(found, Mapping) and all(
        same(found.get(name, NOTHING), value) for name, value in data.items()
    )


def same(one: Any, other: Any) -> bool:
    """``1`` is ``1.0``, but not ``true``."""
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)
