"""Any sequence of requests about people, against a model that is a dictionary."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from audience_sync.sandbox.asked import Answer, Asked, encoded
from audience_sync.sandbox.crisp import Crisp
from audience_sync.sandbox.events import Events
from audience_sync.sandbox.options import WEBSITE
from audience_sync.sandbox.people import People

NOW = datetime(2026, 2, 1, tzinfo=UTC)
EMAILS = st.sampled_from(["ana@x.org", "ANA@x.org", "bo@x.org", "c/d@x.org", "e+f@x.org"])
DATA = st.dictionaries(
    st.sampled_from(["vip", "plan", "n-1", "n_2"]),
    st.one_of(st.booleans(), st.integers(-9, 9), st.sampled_from(["gold", ""])),
    max_size=3,
)
BAD = st.dictionaries(st.sampled_from(["Vip", "v p", "vip"]), st.none(), min_size=1)


class Sequences(RuleBasedStateMachine):
    """``model``: by people_id, the e-mail and the data."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.people = People(lambda: NOW, random.Random(0), Events())
        self.crisp = Crisp({WEBSITE: self.people}, batch_people=3)
        self.model: dict[str, tuple[str, dict[str, Any]]] = {}

    @rule(target=ids, email=EMAILS)
    def create(self, email: str) -> Any:
        content = {"email": email, "person": {"nickname": "x"}}
        answer = self.ask("POST", ("people", "profile"), content)
        if self.owner(email):
            assert answer.status == 409
            return multiple()
        assert answer.status == 201
        people_id = _json(answer)["data"]["people_id"]
        self.model[people_id] = (email, {})
        return people_id

    @rule(who=ids, email=EMAILS)
    def change_email(self, who: str, email: str) -> None:
        answer = self.ask("PATCH", ("people", "profile", who), {"email": email})
        if who not in self.model:
            assert answer.status == 404
            return
        taken = self.owner(email) not in (None, who)
        assert answer.status == (409 if taken else 200)
        if not taken:
            self.model[who] = (email, self.model[who][1])

    @rule(who=ids | EMAILS, data=DATA | BAD)
    def save(self, who: str, data: dict[str, Any]) -> None:
        answer = self.ask("PATCH", ("people", "data", who), {"data": data})
        people_id = who if who in self.model else self.owner(who)
        if people_id is None:
            assert answer.status == 404
        elif None in data.values():
            assert answer.status == 400
        else:
            assert answer.status == 200
            self.model[people_id][1].update(data)

    @rule(who=st.lists(ids, min_size=1, max_size=4), data=DATA | BAD)
    def save_all(self, who: list[str], data: dict[str, Any]) -> None:
        batch = {"people": {"profiles": who}, "data": data}
        answer = self.ask("PATCH", ("batch", "data"), batch)
        if len(who) > 3 or None in data.values():
            assert answer.status == 400
        else:
            assert answer.status == 200
            for people_id in set(who) & set(self.model):
                self.model[people_id][1].update(data)

    @rule(who=ids | EMAILS)
    def remove(self, who: str) -> None:
        people_id = who if who in self.model else self.owner(who)
        answer = self.ask("DELETE", ("people", "profile", who))
        assert answer.status == (200 if people_id else 404)
        self.model.pop(people_id or "", None)

    @invariant()
    def everybody_is_as_the_model_says(self) -> None:
        for people_id, (email, data) in self.model.items():
            for who in (people_id, email, email.upper()):
                found = _json(self.ask("GET", ("people", "profile", who)))["data"]
                assert (found["people_id"], found["email"]) == (people_id, email)
                assert _json(self.ask("GET", ("people", "data", who)))["data"]["data"] == data
        assert list(self.listed()) == list(self.model)[::-1]

    def listed(self) -> Iterator[str]:
        answer = self.ask("GET", ("people", "profiles", "1"))
        return (person["people_id"] for person in _json(answer)["data"])

    def owner(self, email: str) -> str | None:
        found = (i for i, (e, _) in self.model.items() if e.lower() == email.lower())
        return next(found, None)

    def ask(self, method: str, rest: tuple[str, ...], content: Any = None) -> Answer:
        asked = Asked(
            method=method,
            path="",
            segments=("v1", "website", WEBSITE, *rest),
            query={},
            headers={},
            body=encoded(content),
        )
        return self.crisp.answer(asked)


def _json(answer: Answer) -> Any:
    return orjson.loads(answer.body)


TestSequences = Sequences.TestCase
