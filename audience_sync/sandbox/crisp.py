"""Crisp's REST API v1, as far as audience-sync calls it, and DELETE, with which people try
what becomes of a profile that is gone (docs.crisp.chat; node-crisp-api).

Statuses are documented; of the reasons ``people_exists``, ``people_not_found`` and
``invalid_data`` have been seen, the others are ours. No client should rely on any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from audience_sync.sandbox import crisp_content
from audience_sync.sandbox.asked import JSON, Answer, Asked, Refused, encoded
from audience_sync.sandbox.crisp_content import Invalid
from audience_sync.sandbox.people import EmailTaken, Full, People, Person

PER_PAGE = range(20, 51)
WEBSITES_PER_PAGE = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One request for a website: what stood in its path, and all else."""

    asked: Asked
    people: People
    values: Mapping[str, str]
    partial: bool

    def person(self) -> Person:
        found = self.people.find(self.values["who"])
        if found is None:
            raise Refused(refusal(404, "people_not_found", "nobody has this id or e-mail"))
        return found


class Crisp:
    """``websites``: by their id. ``batch_people``: how many a batch may name."""

    def __init__(self, websites: Mapping[str, People], *, batch_people: int) -> None:
        self._websites = websites
        self._batch_people = batch_people
        self._routes: dict[tuple[str, str], Callable[[Call], Answer]] = {
            ("POST", "people/profile"): self._create,
            ("HEAD", "people/profile/{who}"): self._exists,
            ("GET", "people/profile/{who}"): self._read,
            ("PATCH", "people/profile/{who}"): self._update,
            ("DELETE", "people/profile/{who}"): self._remove,
            ("GET", "people/data/{who}"): self._read_data,
            ("PATCH", "people/data/{who}"): self._save_data,
            ("POST", "people/events/{who}"): self._add_event,
            ("GET", "people/profiles/{page}"): self._list,
            ("PATCH", "batch/data"): self._save_all,
        }

    def route(self, asked: Asked) -> str:
        """The name under which it is counted; empty: there is no such route."""
        if _is_websites(asked):
            return "GET plugin/connect/websites/all/{page}"
        for (method, pattern), _ in self._routes.items():
            if method == asked.method and matched(pattern, asked.segments[3:]) is not None:
                return f"{method} {pattern}"
        return ""

    def answer(self, asked: Asked, *, partial: bool = False) -> Answer:
        """Carry it out. ``partial``: of a batch, on every second person only."""
        try:
            if _is_websites(asked):
                return self._list_websites(asked)
            return self._of_website(asked, partial)
        except Refused as refused:
            return refused.answer
        except Invalid as invalid:
            return refusal(400, "invalid_data", str(invalid))
        except EmailTaken:
            return refusal(409, "people_exists", "somebody else has this e-mail")
        except Full:
            return refusal(507, "sandbox_full")

    def _of_website(self, asked: Asked, partial: bool) -> Answer:
        website, rest = asked.segments[2:3], asked.segments[3:]
        for (method, pattern), handle in self._routes.items():
            values = matched(pattern, rest)
            if method == asked.method and values is not None:
                people = self._websites.get(*website)
                if people is None:
                    return refusal(404, "website_not_found", "no website of this sandbox")
                return handle(Call(asked=asked, people=people, values=values, partial=partial))
        others = [m for m, pattern in self._routes if matched(pattern, rest) is not None]
        return refusal(405, "method_not_allowed") if others else refusal(404, "route_not_found")

    def _create(self, call: Call) -> Answer:
        email, card = crisp_content.profile(call.asked.body, creates=True)
        assert email is not None
        person = call.people.add(email, card)
        return success("added", {"people_id": person.people_id}, 201)

    def _exists(self, call: Call) -> Answer:
        call.person()
        return success("resolved", {})

    def _read(self, call: Call) -> Answer:
        return success("resolved", shown(call.person()))

    def _update(self, call: Call) -> Answer:
        person = call.person()
        email, card = crisp_content.profile(call.asked.body, creates=False)
        call.people.change(person, email, card)
        return success("updated", {})

    def _remove(self, call: Call) -> Answer:
        call.people.remove(call.person())
        return success("deleted", {})

    def _read_data(self, call: Call) -> Answer:
        return success("resolved", {"data": call.person().data})

    def _save_data(self, call: Call) -> Answer:
        person = call.person()
        call.people.merge(person, crisp_content.data(call.asked.body))
        return success("updated", {})

    def _add_event(self, call: Call) -> Answer:
        person = call.person()
        call.people.happened(person, crisp_content.event(call.asked.body))
        return success("added", {}, 201)

    def _list(self, call: Call) -> Answer:
        number = page(call.values["page"])
        size = call.asked.query.get("per_page", "20")
        if not (size.isascii() and size.isdigit() and int(size[:4]) in PER_PAGE):
            raise Invalid("per_page is not a number from 20 to 50")
        return success("listed", [shown(p) for p in call.people.page(number, int(size))])

    def _save_all(self, call: Call) -> Answer:
        whom, data = crisp_content.batch(call.asked.body, self._batch_people)
        call.people.merge_all(whom[::2] if call.partial else whom, data)
        return success("updated", {})

    def _list_websites(self, asked: Asked) -> Answer:
        try:
            number = page(asked.segments[5])
        except Invalid as invalid:
            return refusal(400, "invalid_data", str(invalid))
        ids = list(self._websites)[(number - 1) * WEBSITES_PER_PAGE :][:WEBSITES_PER_PAGE]
        listed = [{"website_id": i, "name": f"Sandbox {i[:8]}", "domain": ""} for i in ids]
        return success("listed", listed)


def matched(pattern: str, segments: tuple[str, ...]) -> dict[str, str] | None:
    """What stands for each ``{name}``; ``None``: it does not match."""
    parts = pattern.split("/")
    if len(parts) != len(segments):
        return None
    values = {}
    for part, segment in zip(parts, segments, strict=True):
        if part.startswith("{"):
            values[part[1:-1]] = segment
        elif part != segment:
            return None
    return values


def page(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:9]) > 0):
        raise Invalid("the page is not a number from 1")
    return int(text[:9])


def shown(person: Person) -> dict[str, Any]:
    """A profile. Custom data is not part of it."""
    return {
        "people_id": person.people_id,
        "email": person.email,
        **person.card,
        "created_at": int(person.created_at.timestamp() * 1000),
        "updated_at": int(person.updated_at.timestamp() * 1000),
    }


def success(reason: str, data: Any, status: int = 200) -> Answer:
    body = encoded({"error": False, "reason": reason, "data": data})
    return Answer(status=status, reason=reason, body=body, headers={"content-type": JSON})


def refusal(status: int, reason: str, detail: str = "") -> Answer:
    """``detail`` is for who looks at the sandbox; Crisp does not say it."""
    body = encoded({"error": True, "reason": reason, "data": {}})
    told = f"{reason}: {detail}" if detail else reason
    return Answer(status=status, reason=told, body=body, headers={"content-type": JSON})


def _is_websites(asked: Asked) -> bool:
    wanted = ("plugin", "connect", "websites", "all")
    return asked.method == "GET" and asked.segments[1:5] == wanted and len(asked.segments) == 6
