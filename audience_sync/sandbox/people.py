"""The people of one Crisp website."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from audience_sync.sandbox.events import Events, Happened

MOST_PEOPLE = 500_000
"""Of one website: the sandbox forgets nobody, but takes no more."""

KEPT_EVENTS = 50
"""Of one person, the newest; the others are only counted."""

Plain = str | int | float | bool


class EmailTaken(Exception):
    """It belongs to somebody else."""


class Full(Exception):
    """There are ``MOST_PEOPLE``."""


@dataclass(kw_only=True, slots=True)
class Person:
    people_id: str
    email: str
    card: dict[str, Any] = field(default_factory=dict)
    """``person``, ``company``, …: what a profile has besides its e-mail."""
    data: dict[str, Plain] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    event_count: int = 0
    created_at: datetime
    updated_at: datetime

    @property
    def nickname(self) -> str:
        return str(self.card.get("person", {}).get("nickname", ""))


class People:
    """By ``people_id`` and by e-mail, which is compared without regard to case.

    Args:
        random: gives the ids.
        events: gets those of everybody.
    """

    def __init__(
        self, clock: Callable[[], datetime], random: random.Random, events: Events
    ) -> None:
        self._clock = clock
        self._events = events
        self._random = random
        self._people: dict[str, Person] = {}
        self._by_email: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._people)

    def __iter__(self) -> Iterator[Person]:
        """Newest first."""
        return reversed(self._people.values())

    def add(self, email: str, card: Mapping[str, Any]) -> Person:
        """
        Raises:
            EmailTaken: somebody has it.
            Full: no more fit.
        """
        if email.lower() in self._by_email:
            raise EmailTaken
        if len(self._people) >= MOST_PEOPLE:
            raise Full
        now = self._clock()
        people_id = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        person = Person(
            people_id=people_id, email=email, card=dict(card), created_at=now, updated_at=now
        )
        self._people[people_id] = person
        self._by_email[email.lower()] = people_id
        return person

    def find(self, who: str) -> Person | None:
        """``who``: a people_id or an e-mail."""
        people_id = self._by_email.get(who.lower(), who) if "@" in who else who
        return self._people.get(people_id)

    def change(self, person: Person, email: str | None, card: Mapping[str, Any]) -> None:
        """What is not named stays, also within ``person``, ``company``, ….

        Raises:
            EmailTaken: somebody else has it; nothing was changed.
        """
        if email is not None:
            if self._by_email.get(email.lower(), person.people_id) != person.people_id:
                raise EmailTaken
            del self._by_email[person.email.lower()]
            person.email = email
            self._by_email[email.lower()] = person.people_id
        for name, value in card.items():
            before = person.card.get(name)
            if isinstance(before, dict) and isinstance(value, dict):
                person.card[name] = {**before, **value}
            else:
                person.card[name] = value
        person.updated_at = self._clock()

    def remove(self, person: Person) -> None:
        del self._people[person.people_id]
        del self._by_email[person.email.lower()]

    def merge(self, person: Person, data: Mapping[str, Plain]) -> None:
        person.data |= data
        person.updated_at = self._clock()

    def merge_all(self, people_ids: Iterable[str], data: Mapping[str, Plain]) -> int:
        """How many there were; nobody is told of the others."""
        known = [self._people[i] for i in people_ids if i in self._people]
        for person in known:
            self.merge(person, data)
        return len(known)

    def happened(self, person: Person, event: Mapping[str, Any]) -> None:
        now = self._clock()
        person.events.append({**event, "timestamp": now.isoformat()})
        del person.events[:-KEPT_EVENTS]
        person.event_count += 1
        self._events.add(
            Happened(
                at=now,
                api="crisp",
                who=person.email,
                name=event["text"],
                properties=event.get("data", {}),
            )
        )

    def page(self, number: int, size: int) -> list[Person]:
        """``number``: from 1."""
        newest = list(reversed(self._people.values()))
        return newest[(number - 1) * size : number * size]
