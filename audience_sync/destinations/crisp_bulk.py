"""``bulk``: who may be told together with others, and whether Crisp is still trusted with it.

Of a batch of people Crisp documents neither how many it takes nor what becomes of the others when
it fails for some. So what it did is looked at, and at the first doubt all are told one by one.
"""

from __future__ import annotations

import math
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import structlog

from audience_sync.destinations.crisp_document import PROFILE, Document
from audience_sync.destinations.crisp_member import due_columns
from audience_sync.destinations.crisp_sharing import PEOPLE, Parts, parts_of, size_for
from audience_sync.domain.contact import Contact, read
from audience_sync.domain.quota import Lane, quota_of
from audience_sync.errors import CallsOutdated

log = structlog.get_logger(__name__)

TOGETHER = 4 * PEOPLE
"""Consecutive members among whom those are looked for who share requests."""

REPEATED = 30
"""Requests of one send, which each worker repeats at most when the process is killed."""

LOOKED_AT = 2
"""Requests of a process of which each is looked at closely; then, of each ``Together``, it is one
of those that say the same."""

CLOSELY = 3
"""People who are read."""

READS = LOOKED_AT * (CLOSELY - 1)
"""More than one for each request."""

MOST_ALONE = 3
"""Requests that one member takes who is told alone."""

DOUBTED_FOR = timedelta(days=1)
READ_LATELY = 1_000


def together(told: Document, contact: Contact | None) -> Parts:
    """The custom data that are all that ``contact`` needs; nothing: more is to be told.

    Without the ``user_id``, which is of one member only, and without columns that Crisp was told
    of them already, unless all is told anew.
    """
    if contact is None or contact.people_id is None or told.events or told.is_event:
        return ()
    known = read(contact.profile)
    due = {
        name: column
        for name, column in due_columns(told.columns, contact).items()
        if (told.is_anew and name not in PROFILE)
        or name not in known
        or known[name].digest != column.told.digest
    }
    if due.keys() & told.profile().keys():
        return ()
    return parts_of({name: column.value for name, column in due.items()} | dict(told.traits))


def as_custom_data(told: Document) -> Mapping[str, Any]:
    """All of it, were nothing known to Crisp."""
    return {name: column.value for name, column in told.custom().items()} | dict(told.traits)


def looked_at_together(
    all_told: Sequence[Document], *, quota: int | None, reserve: float
) -> Iterator[Sequence[Document]]:
    """Consecutive members whose shared requests a lane can surely send within a day."""
    a_day = math.inf if quota is None else quota_of(Lane.INITIAL, quota=quota, reserve=reserve)
    most = a_day - READS - MOST_ALONE
    size = size_for([as_custom_data(told) for told in all_told], most)
    for start in range(0, len(all_told), size):
        yield all_told[start : start + size]


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One request, with the contacts of those whom it tells."""

    parts: Parts
    data: Mapping[str, Any]
    members: Sequence[tuple[Document, Contact]]

    @property
    def people_ids(self) -> list[str]:
        return [contact.people_id for _, contact in self.members if contact.people_id]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """People of a batch, in the order in which to look at them, and how many of them suffice."""

    batch: Batch
    people_ids: Sequence[str]
    count: int


class Bulk:
    """Of one destination; used by all its workers."""

    def __init__(self, *, name: str, wanted: bool, clock: Callable[[], datetime]) -> None:
        self._name = name
        self.is_wanted = wanted
        self._clock = clock
        self._lock = threading.Lock()
        self._doubted_until = datetime.min.replace(tzinfo=UTC)
        self._looked_at = 0
        self._read: OrderedDict[str, None] = OrderedDict()
        self._random = random.Random()

    @property
    def is_on(self) -> bool:
        return self.is_wanted and self._clock() >= self._doubted_until

    def doubt(self, why: str) -> None:
        """All are told one by one from now on; another day it is tried again."""
        with self._lock:
            if not self.is_on:
                return
            self._doubted_until = self._clock() + DOUBTED_FOR
            self._looked_at = 0
        log.warning(
            "told one by one for a day: a request for many did not do what it should",
            destination=self._name,
            reason=why,
        )

    def doubted(self, why: str) -> NoReturn:
        """All are told one by one, from the position on."""
        self.doubt(why)
        raise CallsOutdated(why)

    def samples(self, batches: Sequence[Batch]) -> list[Sample]:
        """What is looked at of the requests of one ``Together``."""
        with self._lock:
            closely = batches[: max(LOOKED_AT - self._looked_at, 0)]
            self._looked_at += len(closely)
        others: dict[Parts, list[Batch]] = {}
        for batch in batches[len(closely) :]:
            others.setdefault(batch.parts, []).append(batch)
        for batch in closely:
            others.pop(batch.parts, None)
        drawn = [self._random.choice(same) for same in others.values()]
        return [self._sample(batch, CLOSELY) for batch in closely] + [
            self._sample(batch, 1) for batch in drawn
        ]

    def _sample(self, batch: Batch, count: int) -> Sample:
        """The last is the first to be missing where Crisp takes fewer; the others are drawn. Who
        was read lately comes last: the answer might be the one of then."""
        *others, last = batch.people_ids
        self._random.shuffle(others)
        likely = count > 1 or self._random.random() < 0.5
        people_ids = [last, *others] if likely else [*others, last]
        with self._lock:
            people_ids.sort(key=lambda one: one in self._read)
        return Sample(batch=batch, people_ids=people_ids, count=count)

    def was_read(self, people_id: str) -> None:
        with self._lock:
            self._read[people_id] = None
            while len(self._read) > READ_LATELY:
                self._read.popitem(last=False)
