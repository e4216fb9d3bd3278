"""The forecast of requests against what a sandbox was sent: never less, and exact where it says."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from audience_sync.domain.audience import Row
from audience_sync.domain.requests import Requests, exactly
from audience_sync.pipeline.ports.sending import Told
from tests.fakes.crisp import NOW, Crisp, Teller, crisp_sandbox, teller, told

AUDIENCES = ("vip", "winback", "lapsed", "trial", "buyers")
MANY = 12
Member = Sequence[Told]


@dataclass(kw_only=True)
class Shop:
    """Users whose e-mails, names and audiences change, and a Crisp that has some of them."""

    crisp: Crisp
    teller: Teller
    draw: random.Random
    users: dict[str, Row] = field(default_factory=dict)
    inside: set[tuple[str, str]] = field(default_factory=set)
    at: datetime = NOW

    def day(self, *, everybody: str | None = None) -> list[Member]:
        """What the day's captures tell, by member; or everybody, as a first delivery does."""
        self.at += timedelta(days=1)
        members: list[Member] = []
        for number in range(MANY):
            user = f"u{number:03}"
            before = self.users.get(user)
            after = self.users[user] = self._row(user, before)
            if everybody:
                self.inside.add((everybody, user))
                more = {"at": self.at, "members_left": MANY}
                members.append([told(user, after, key=everybody, **more)])  # type: ignore[arg-type]
            else:
                members.append(self._changes(user, before or after, after))
        return [member for member in members if member]

    def _changes(self, user: str, before: Row, after: Row) -> Member:
        changes = []
        for key in AUDIENCES:
            if self.draw.random() < 0.6:
                continue
            if (key, user) in self.inside:
                self.inside.discard((key, user))
                changes.append(told(user, None, before, key=key, at=self.at))
            else:
                self.inside.add((key, user))
                changes.append(told(user, after, key=key, at=self.at))
        return changes

    def _row(self, user: str, before: Row | None) -> Row:
        draw = self.draw.random
        row = dict(before or {"email": f"{user}@example.com"})
        if before is None and draw() < 0.2:
            row["email"] = None
        if before is not None and draw() < 0.1:
            row["email"] = f"{user}.{self.draw.randrange(1000)}@example.com"
        if draw() < 0.3:
            row["name"] = f"Name {self.draw.randrange(3)}"
        if draw() < 0.2:
            row["plan"] = self.draw.choice(["free", "pro"])
        return row

    def count(self, members: Sequence[Member]) -> Requests:
        count = self.teller.to.count()
        return count.of(members)

    def send(self, members: Sequence[Member]) -> int:
        """How many requests Crisp was sent."""
        before = self.sent()
        for member in members:
            self.teller.tell(*member)
        return self.sent() - before

    def sent(self) -> int:
        return int(self.crisp.get("counts.json")["requests"])


def shop(crisp: Crisp, seed: int, **other: object) -> Shop:
    return Shop(crisp=crisp, teller=teller(crisp, **other), draw=random.Random(seed))


@pytest.mark.parametrize("with_track", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_no_history_takes_more_than_was_foreseen(seed: int, with_track: bool) -> None:
    with crisp_sandbox() as crisp:
        made = shop(crisp, seed, with_track=with_track)
        draw = made.draw
        for number in draw.sample(range(MANY), draw.randrange(MANY)):
            crisp.add(f"u{number:03}@example.com")
        for number in range(draw.choice([0, 3, 60])):
            crisp.add(f"stranger{number}@example.com")
        for _ in range(6):
            everybody = draw.choice(AUDIENCES) if draw.random() < 0.3 else None
            members = made.day(everybody=everybody)
            foreseen = made.count(members).one_by_one
            sent = made.send(members)
            assert foreseen.least <= sent <= foreseen.most
            if foreseen.is_exact:
                assert sent == foreseen.most


@pytest.mark.parametrize("seed", range(3))
def test_whom_the_store_knows_is_exact(seed: int) -> None:
    """Once all were told and people listed, and nobody but us changes anything at Crisp."""
    with crisp_sandbox() as crisp:
        made = shop(crisp, seed)
        for number in range(0, MANY, 2):
            crisp.add(f"u{number:03}@example.com")
        made.send(made.day(everybody="vip"))
        made.users = {u: {**row, "email": f"{u}@example.com"} for u, row in made.users.items()}
        made.draw = random.Random(seed)
        for _ in range(5):
            members = made.day()
            if _emails_changed(made):
                continue
            foreseen = made.count(members)
            assert foreseen.one_by_one == exactly(made.send(members))


def _emails_changed(made: Shop) -> bool:
    known = made.teller.known.contacts
    return any(known[u].email != row["email"] for u, row in made.users.items() if u in known)


def test_a_member_of_five_audiences_takes_one_request_and_saves_four() -> None:
    with crisp_sandbox() as crisp:
        made = shop(crisp, 0)
        row = {"email": "ana@example.com"}
        made.send([[told("ana", row)]])
        five = [told("ana", row, key=key, at=NOW + timedelta(days=1)) for key in AUDIENCES]
        foreseen = made.count([five])
        assert foreseen.one_by_one == exactly(1)
        assert foreseen.saved == 4
        assert made.send([five]) == 1


def test_who_cannot_be_told_yet_takes_none() -> None:
    with crisp_sandbox() as crisp:
        made = shop(crisp, 0)
        foreseen = made.count([[told("ana", {"email": None})]])
        assert (foreseen.one_by_one, foreseen.skipped) == (exactly(0), 1)


def test_an_email_that_is_another_persons_takes_one_request_more() -> None:
    with crisp_sandbox() as crisp:
        made = shop(crisp, 0)
        crisp.add("bob@example.com")
        made.send([[told("ana", {"email": "ana@example.com", "name": "Ana"})]])
        later = {"email": "bob@example.com", "name": "Anna"}
        members = [[told("ana", later, key="lapsed", at=NOW + timedelta(days=1))]]
        foreseen = made.count(members).one_by_one
        assert (foreseen.least, foreseen.most) == (2, 3)
        assert made.send(members) == 3
