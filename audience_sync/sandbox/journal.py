"""What was asked, and what became of it: the newest requests, and counts of all."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta

KEPT = 10_000
"""Requests; the oldest are dropped, and counted."""

KEPT_REFUSALS = 1_000
KEPT_DAYS = 400
KEPT_MINUTES = 60
LONGEST_BODY = 2_000
"""Characters of a body that are kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A request. ``outcome``: its status, or the name of its fault. ``route`` is empty if there
    is none; ``body`` is cut."""

    number: int
    at: datetime
    api: str
    method: str
    path: str
    route: str
    outcome: str
    reason: str
    is_refusal: bool
    body: str


@dataclass(kw_only=True, slots=True)
class Minute:
    accepted: int = 0
    refused: int = 0


Counts = dict[date, Counter[tuple[str, str, str]]]
"""By day; then by API, route and outcome."""


class Journal:
    def __init__(self, clock: Callable[[], datetime], today: Callable[[], date]) -> None:
        self._clock = clock
        self._today = today
        self._minutes: dict[datetime, Minute] = {}
        self.entries: deque[Entry] = deque(maxlen=KEPT)
        self.refusals: deque[Entry] = deque(maxlen=KEPT_REFUSALS)
        self.counts: Counts = {}
        self.number = 0
        self.refused = 0

    @property
    def dropped(self) -> int:
        return self.number - len(self.entries)

    def add(
        self,
        *,
        api: str,
        method: str,
        path: str,
        route: str,
        outcome: str,
        reason: str,
        is_refusal: bool,
        body: bytes,
    ) -> None:
        self.number += 1
        text = body[: LONGEST_BODY * 4].decode("utf-8", "replace")[:LONGEST_BODY]
        entry = Entry(
            number=self.number,
            at=self._clock(),
            api=api,
            method=method,
            path=path,
            route=route,
            outcome=outcome,
            reason=reason,
            is_refusal=is_refusal,
            body=text,
        )
        self.entries.append(entry)
        if is_refusal:
            self.refused += 1
            self.refusals.append(entry)
        self._count(entry)

    def minutes(self) -> Iterator[tuple[datetime, Minute]]:
        """The last ``KEPT_MINUTES``, oldest first, also those in which nothing came."""
        now = _minute(self._clock())
        for ago in range(KEPT_MINUTES - 1, -1, -1):
            at = now - timedelta(minutes=ago)
            yield at, self._minutes.get(at, Minute())

    def _count(self, entry: Entry) -> None:
        of_day = self.counts.setdefault(self._today(), Counter())
        of_day[entry.api, entry.route, entry.outcome] += 1
        minute = self._minutes.setdefault(_minute(entry.at), Minute())
        if entry.is_refusal:
            minute.refused += 1
        else:
            minute.accepted += 1
        while len(self.counts) > KEPT_DAYS:
            del self.counts[min(self.counts)]
        while len(self._minutes) > KEPT_MINUTES:
            del self._minutes[min(self._minutes)]


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)
