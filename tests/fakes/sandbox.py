"""A sandbox in a thread, and clients that speak to it over real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx

from audience_sync.sandbox.options import WEBSITE, Options
from audience_sync.sandbox.server import server

NOON = datetime(2026, 2, 1, 12, 0, tzinfo=UTC)


@dataclass(eq=False)
class Sandbox:
    """``now`` is what its clock says. ``path`` of ``crisp`` is below the website."""

    options: Options
    port: int = 0
    now: datetime = NOON
    clients: list[httpx.Client] = field(default_factory=list)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def crisp(
        self, method: str, path: str, said: Any = None, *, website: str = WEBSITE, **more: Any
    ) -> httpx.Response:
        identifier, _, key = self.options.crisp_key.partition(":")
        asked: dict[str, Any] = {
            "auth": (identifier, key),
            "headers": {"X-Crisp-Tier": "plugin"},
            "json": said,
        }
        url = f"{self.base}/v1/website/{website}/{path}"
        return self.client().request(method, url, **(asked | more))

    def segment(self, path: str, said: Any = None, **more: Any) -> httpx.Response:
        asked: dict[str, Any] = {"auth": (self.options.write_key, ""), "json": said}
        return self.client().request("POST", f"{self.base}/v1/{path}", **(asked | more))

    def ask(self, path: str, method: str = "GET", **more: Any) -> httpx.Response:
        return self.client().request(method, f"{self.base}{path}", **more)

    def person(self, email: str = "ana@example.com", nickname: str = "Ana") -> str:
        """Create somebody; the people_id."""
        content = {"email": email, "person": {"nickname": nickname}}
        answer = self.crisp("POST", "people/profile", content)
        assert answer.status_code == 201, answer.text
        people_id: str = answer.json()["data"]["people_id"]
        return people_id

    def data(self, who: str) -> Any:
        return self.crisp("GET", f"people/data/{coded(who)}").json()["data"]["data"]

    def people(self) -> Any:
        return self.ask("/sandbox/people.json").json()["crisp"][WEBSITE]

    def counts(self) -> Any:
        return self.ask("/sandbox/counts.json").json()

    def calls(self) -> list[Any]:
        found: list[Any] = self.ask("/sandbox/calls.json").json()["calls"]
        return found

    def client(self) -> httpx.Client:
        if not self.clients:
            self.clients.append(httpx.Client(timeout=30))
        return self.clients[0]


@contextmanager
def sandbox(**options: Any) -> Iterator[Sandbox]:
    made = Sandbox(Options(**options))
    serving = server(made.options, ("127.0.0.1", 0), lambda: made.now)
    serving.start()
    made.port = serving.port
    try:
        yield made
    finally:
        for client in made.clients:
            client.close()
        serving.stop()


def coded(who: str) -> str:
    return quote(who, safe="")
