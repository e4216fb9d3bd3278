"""The pages for people: HTML made here, without a script; every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from audience_sync.sandbox import views
from audience_sync.sandbox.people import Person
from audience_sync.sandbox.pointing import configuration
from audience_sync.sandbox.state import State
from audience_sync.sandbox.users import User

T = TypeVar("T")

TEMPLATES = Path(__file__).with_name("templates")
LAST_REFUSALS = 5
LONGEST_QUERY = 200
FILES = {"/style.css": "text/css; charset=utf-8", "/icon.svg": "image/svg+xml"}


class Pages:
    """One method for each page."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._templates = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {"pairs": views.pairs, "brief": views.brief}

    def routes(self) -> list[Route]:
        return [
            Route("/", self.overview),
            Route("/people", self.people),
            Route("/events", self.events),
            Route("/requests", self.requests),
            *(Route(path, self.file) for path in FILES),
        ]

    async def overview(self, request: Request) -> Response:
        state = self._state
        # By the name that brought the reader here, which the gate has looked at.
        base = f"http://{request.headers['host']}"
        return self._page(
            "overview",
            figures=self._figures(),
            chart=views.chart(list(state.journal.minutes())),
            refusals=newest(state.journal.refusals)[:LAST_REFUSALS],
            today=state.days.today().isoformat(),
            quotas=[
                {"tier": t, "used": state.quotas.used(t), "limit": state.options.quota_of(t)}
                for t in state.options.tiers
            ],
            base=base,
            configuration=configuration(state.options, base),
            failures=", ".join(f"{f.name} {f.share:.0%}" for f in state.options.failures),
        )

    async def people(self, request: Request) -> Response:
        query = request.query_params.get("q", "")[:LONGEST_QUERY]
        at = request.query_params.get("at", "")
        found = views.listed(self._found(query, at), page_of(request))
        people = [views.someone(one) for one in found.items]
        return self._page(
            "people",
            list=found,
            people=people,
            query=query,
            at=at,
            places=self._places(),
            href=f"people?{urlencode({'q': query, 'at': at})}&page=",
        )

    async def events(self, request: Request) -> Response:
        events = self._state.events
        return self._page(
            "events",
            list=views.listed(newest(events.newest), page_of(request)),
            total=events.total,
            kept=len(events.newest),
            href="events?page=",
        )

    async def requests(self, request: Request) -> Response:
        journal = self._state.journal
        refused = request.query_params.get("refused") == "1"
        entries = journal.refusals if refused else journal.entries
        return self._page(
            "requests",
            list=views.listed(newest(entries), page_of(request)),
            refused=refused,
            dropped=0 if refused else journal.dropped,
            href="requests?refused=1&page=" if refused else "requests?page=",
        )

    async def file(self, request: Request) -> Response:
        path = request.url.path
        content = (TEMPLATES / path[1:]).read_bytes()
        return Response(content, headers={"content-type": FILES[path]})

    def _figures(self) -> list[dict[str, object]]:
        state = self._state
        people = sum(len(found) for found in state.websites.values())
        numbers = (
            ("requests", state.journal.number, "requests"),
            ("refused or failed", state.journal.refused, "requests?refused=1"),
            ("people in Crisp", people, "people"),
            ("users in Segment", len(state.users), "people?at=segment"),
            ("events", state.events.total, "events"),
        )
        return [{"name": name, "number": n, "href": href} for name, n, href in numbers]

    def _places(self) -> list[tuple[str, str]]:
        websites = [(name, f"Crisp {name[:8]}") for name in self._state.websites]
        return [("", "Everywhere"), ("segment", "Segment"), *websites]

    def _found(self, query: str, at: str) -> list[Person | User]:
        websites = self._state.websites
        found: list[Person | User] = []
        for name, people in websites.items():
            if at in ("", name):
                found += views.matching(people, query)
        if at in ("", "segment"):
            found += views.matching(self._state.users, query)
        return sorted(found, key=lambda one: one.updated_at, reverse=True)

    def _page(self, here: str, **values: object) -> Response:
        template = self._templates.get_template(f"{here}.html")
        text = template.render(here=here, now=self._state.clock(), **values)
        return HTMLResponse(text)


def newest(items: Iterable[T]) -> list[T]:
    return list(items)[::-1]


def page_of(request: Request) -> int:
    text = request.query_params.get("page", "1")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1
