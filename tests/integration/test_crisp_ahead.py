"""Whom Crisp has is read from the store for many members at once, not for each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from audience_sync.domain.contact import Contact, Person
from audience_sync.pipeline import batches
from audience_sync.pipeline.batches import Batch
from audience_sync.pipeline.bundle import Member
from tests.fakes.crisp import NOW, KnownInMemory, destination, told

NOWHERE: Any = SimpleNamespace(base="http://127.0.0.1:1/v1", website="w")


@dataclass
class Counted(KnownInMemory):
    asked: list[int] = field(default_factory=list)
    """How many users, or e-mails, each query was for."""

    def __post_init__(self) -> None:
        super().__init__()

    def find(self, user_ids: Collection[str]) -> dict[str, Contact]:
        self.asked.append(len(user_ids))
        return super().find(user_ids)

    def by_email(self, emails: Collection[str]) -> dict[str, Person]:
        self.asked.append(len(emails))
        return super().by_email(emails)


def met(number: int) -> Contact:
    return Contact(user_id=f"u{number:03}", people_id=f"p{number}", email=None, as_of=NOW)


def members(count: int, *, email: bool = True) -> list[Member]:
    rows = {f"u{n:03}": {"email": f"u{n:03}@example.com" if email else None} for n in range(count)}
    return [Member(user_id=u, told=[told(u, row)], spans=(0,)) for u, row in rows.items()]


@pytest.mark.parametrize("bulk", [False, True])
def test_a_walk_asks_the_store_once_for_many(bulk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "AHEAD", 40)
    known = Counted()
    known.put([met(number) for number in range(0, 100, 2)])
    known.people = {
        f"u{n:03}@example.com": Person(email=f"u{n:03}@example.com", people_id=f"l{n}")
        for n in range(1, 100, 4)
    }
    to = destination(NOWHERE, known, bulk=bulk)
    made = list(batches.batches(members(100), to))
    assert known.asked == ([40, 20, 40, 20, 20, 10] if bulk else [40, 40, 20])
    calls = [calls for batch in made for calls in batch.members]
    assert [one.user_id for one in calls] == [member.user_id for member in members(100)]
    listed = 2 if bulk else 3
    assert [one.requests for one in calls] == [
        2 if n % 2 == 0 else listed if n % 4 == 1 else 3 for n in range(100)
    ]


def test_who_cannot_be_told_is_told_apart_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "AHEAD", 40)
    known = Counted()
    known.put([met(number) for number in range(0, 100, 2)])
    made = list(batches.batches(members(100, email=False), destination(NOWHERE, known)))
    assert {c.user_id for batch in made for c in batch.members} == {*known.contacts}
    assert sum(len(batch.refusals) for batch in made) == 50
    assert len(known.asked) == 3


def test_what_was_learned_since_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the other lane of this process, before the store knows."""
    known = Counted()
    to = destination(NOWHERE, known)

    def refusals(made: list[Batch]) -> int:
        return sum(len(batch.refusals) for batch in made)

    assert refusals(list(batches.batches(members(2, email=False), to))) == 2
    of_two = members(2, email=False)
    to.look_ahead([member.told for member in of_two])
    later = Contact(user_id="u001", people_id="p1", email=None, as_of=NOW + timedelta(hours=1))
    to._people.learn(later)
    assert [type(to.calls(member.told)).__name__ for member in of_two] == ["Refusal", "CrispCalls"]
