"""For tests: what arrived, as JSON, and the day that it is. For this machine only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from audience_sync.sandbox.asked import JSON, encoded
from audience_sync.sandbox.crisp import shown
from audience_sync.sandbox.journal import Entry
from audience_sync.sandbox.people import Person
from audience_sync.sandbox.state import State
from audience_sync.sandbox.users import User


class Control:
    """One method for each path."""

    def __init__(self, state: State) -> None:
        self._state = state

    def routes(self) -> list[Route]:
        return [
            Route("/sandbox/people.json", self.people),
            Route("/sandbox/calls.json", self.calls),
            Route("/sandbox/counts.json", self.counts),
            Route("/sandbox/day", self.day, methods=["POST"]),
            Route("/sandbox/fresh", self.fresh, methods=["POST"]),
        ]

    async def people(self, _request: Request) -> Response:
        crisp = {name: [person(p) for p in found] for name, found in self._state.websites.items()}
        return answered({"crisp": crisp, "segment": [user(u) for u in self._state.users]})

    async def calls(self, request: Request) -> Response:
        """``?after=N``: only what came after that number. Oldest first."""
        number = _number(request.query_params.get("after", "0"))
        if number is None:
            return unknown("after")
        journal = self._state.journal
        found = [entry(e) for e in _newer(journal.entries, number)]
        return answered({"calls": found, "dropped": journal.dropped})

    async def counts(self, _request: Request) -> Response:
        state = self._state
        days: dict[str, Any] = {}
        for day, of_day in state.journal.counts.items():
            for (api, route, outcome), number in of_day.items():
                routes = days.setdefault(day.isoformat(), {}).setdefault(api, {})
                routes.setdefault(route or "unknown", {})[outcome] = number
        quota = {
            tier: {"limit": state.options.quota_of(tier), "used": state.quotas.used(tier)}
            for tier in state.options.tiers
        }
        today = state.days.today().isoformat()
        return answered(
            {"today": today, "requests": state.journal.number, "quota": quota, "days": days}
        )

    async def day(self, request: Request) -> Response:
        """``?days=N``: turn so many, else one. The quotas are whole again."""
        days = _number(request.query_params.get("days", "1"))
        if days is None:
            return unknown("days")
        self._state.days.turn(days)
        return answered({"today": self._state.days.today().isoformat()})

    async def fresh(self, _request: Request) -> Response:
        """Forget the answers that ``--stale`` keeps."""
        self._state.stale.clear()
        return answered({})


def answered(value: Any) -> Response:
    return Response(encoded(value), headers={"content-type": JSON})


def unknown(name: str) -> Response:
    """What is wrong with the query, and nothing was done."""
    body = encoded({"error": f"{name} is not a number from 0 to 999999999"})
    return Response(body, 400, headers={"content-type": JSON})


def person(found: Person) -> dict[str, Any]:
    events = {"events": list(found.events), "event_count": found.event_count}
    return {**shown(found), "data": found.data, **events}


def user(found: User) -> dict[str, Any]:
    return {
        "user_id": found.user_id,
        "traits": found.traits,
        "events": list(found.events),
        "event_count": found.event_count,
    }


def entry(found: Entry) -> dict[str, Any]:
    return {
        "number": found.number,
        "at": found.at.isoformat(),
        "api": found.api,
        "method": found.method,
        "path": found.path,
        "route": found.route,
        "outcome": found.outcome,
        "reason": found.reason,
        "body": found.body,
    }


def _newer(entries: Iterable[Entry], number: int) -> Iterator[Entry]:
    return (entry for entry in entries if entry.number > number)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
