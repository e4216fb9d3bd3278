"""Crisp as the sandbox speaks it, in this process, and a destination that tells it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from audience_sync.destinations.crisp import CrispDestination
from audience_sync.destinations.transport import trusted
from audience_sync.domain.audience import AudienceKey, Kind, Row
from audience_sync.domain.change import Change
from audience_sync.domain.contact import Contact, Listing, Person, folded, learned
from audience_sync.domain.span import Refusal
from audience_sync.pipeline.ports.sending import MemberCalls, Sent, SpanContext, Told
from audience_sync.sandbox.existing import Existing
from audience_sync.sandbox.options import WEBSITE, Options
from audience_sync.sandbox.server import server

NOW = datetime(2026, 10, 7, 6, 5, tzinfo=UTC)


class KnownInMemory:
    """``Contacts`` of a store that nobody else uses."""

    def __init__(self) -> None:
        self.contacts: dict[str, Contact] = {}
        self.people: dict[str, Person] = {}
        self.listed: Listing | None = None
        self.website_id: str | None = None

    def find(self, user_ids: Any) -> dict[str, Contact]:
        return {u: self.contacts[u] for u in user_ids if u in self.contacts}

    def by_email(self, emails: Any) -> dict[str, Person]:
        met = {
            c.email: Person(email=c.email, people_id=c.people_id, profile=c.profile)
            for c in self.contacts.values()
            if c.email and c.people_id
        }
        known = self.people | met
        return {folded(e): known[folded(e)] for e in emails if folded(e) in known}

    def known(self) -> int:
        return len(self.contacts)

    def listing(self) -> Listing | None:
        return self.listed

    def keep_page(self, people: Any, now_at: Listing) -> None:
        self.people |= {folded(person.email): person for person in people}
        self.listed = now_at

    def keep(self, some: Any) -> None:
        self.put(some)

    def website(self) -> str | None:
        return self.website_id

    def keep_website(self, website_id: str) -> None:
        self.website_id = website_id

    def put(self, contacts: Any) -> None:
        for contact in contacts:
            stored = self.contacts.get(contact.user_id)
            self.contacts[contact.user_id] = learned(stored, contact)


@dataclass(kw_only=True, slots=True)
class Crisp:
    """A running sandbox."""

    base: str
    website: str = WEBSITE

    def people(self) -> dict[str, dict[str, Any]]:
        """By e-mail in lower case, as they are now."""
        listed = self.get("people.json")["crisp"][self.website]
        return {person["email"].lower(): person for person in listed}

    def data(self, email: str) -> dict[str, Any]:
        data: dict[str, Any] = self.people()[email]["data"]
        return data

    def calls(self) -> list[str]:
        """``PATCH people/data/{who}`` and so on, with what came of it, oldest first."""
        calls = self.get("calls.json")["calls"]
        return [f"{call['route']} {call['outcome']}" for call in calls]

    def bodies(self) -> list[Any]:
        return [call["body"] for call in self.get("calls.json")["calls"]]

    def get(self, what: str) -> Any:
        while True:
            with suppress(httpx.HTTPError):
                url = self.base.replace("/v1", f"/sandbox/{what}")
                return httpx.get(url, verify=trusted()).json()

    def post(self, what: str) -> None:
        httpx.post(self.base.replace("/v1", f"/sandbox/{what}")).raise_for_status()

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """As somebody else who has the key."""
        with httpx.Client(verify=trusted()) as client:
            return client.request(
                method,
                f"{self.base}/website/{self.website}/{path}",
                json=body,
                auth=("sandbox", "sandbox-key"),
                headers={"X-Crisp-Tier": "website"},
            )

    def add(self, email: str, nickname: str = "Somebody", **person: Any) -> str:
        """Who is there before anybody is told anything; whatever fails on the way."""
        body = {"email": email, "person": {"nickname": nickname, **person}}
        while True:
            with suppress(httpx.HTTPError):
                answer = self.ask("POST", "people/profile", body)
                if answer.status_code == 409:
                    answer = self.ask("GET", f"people/profile/{email}")
                if answer.status_code in (200, 201):
                    return str(answer.json()["data"]["people_id"])


@contextmanager
def crisp_sandbox(
    existing: Iterable[Existing] = (), clock: Callable[[], datetime] = lambda: NOW, **options: Any
) -> Iterator[Crisp]:
    chosen = {"quota": 1_000_000, **options}
    running = server(Options(**chosen), ("127.0.0.1", 0), clock, existing)
    running.start()
    try:
        yield Crisp(base=f"http://127.0.0.1:{running.port}/v1")
    finally:
        running.stop()


def destination(
    crisp: Crisp,
    known: Any = None,
    make: type[CrispDestination] = CrispDestination,
    **other: Any,
) -> CrispDestination:
    values: dict[str, Any] = {
        "name": "crisp",
        "api_key": "sandbox:sandbox-key",
        "endpoint": crisp.base,
        "tier": "plugin",
        "website_id": crisp.website,
        "fingerprint": "f",
        "contacts": KnownInMemory() if known is None else known,
        "salt": "salt",
        "rate": 1e6,
        "reserve": 0.2,
        "concurrency": 2,
        "clock": lambda: NOW,
    }
    return make(**(values | other))


def told(
    user_id: str,
    after: Row | None,
    before: Row | None = None,
    *,
    key: str = "vip",
    kind: Kind = Kind.AUDIENCE,
    at: datetime = NOW,
    members_left: int = 0,
) -> Told:
    context = SpanContext(
        audience=AudienceKey(key),
        kind=kind,
        span_number=1,
        timestamp=at,
        installation="installation-1",
        members_left=members_left,
    )
    return Told(change=Change(user_id=user_id, before=before, after=after), context=context)


@dataclass(kw_only=True, slots=True)
class Teller:
    """Tells members, one after the other, and keeps what is learned of them."""

    to: CrispDestination
    known: KnownInMemory

    def tell(self, *changes: Told) -> Sent:
        """What one member is told at once."""
        made = self.to.calls(changes)
        if isinstance(made, Refusal):
            return Sent(refusals=[made])
        return self.send(made)

    def send(self, *members: MemberCalls) -> Sent:
        sender = self.to.sender()
        try:
            sent = sender.send(members)
        finally:
            sender.close()
        self.known.put(sent.contacts)
        return sent


def teller(crisp: Crisp, **other: Any) -> Teller:
    known = KnownInMemory()
    return Teller(to=destination(crisp, known, **other), known=known)


def row(user_id: str, **other: Any) -> Row:
    columns: Mapping[str, Any] = {"email": f"{user_id}@example.com", **other}
    return columns
