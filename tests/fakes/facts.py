"""What a daemon would tell of itself, told by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from audience_sync.app import App
from audience_sync.standing.counters import Counters
from audience_sync.web.server import StatusServer


@dataclass(eq=False)
class Told:
    """See ``standing.facts.Facts``."""

    wired: App | None = None
    alive: bool = True
    silent: bool = False
    counters: Counters = field(default_factory=Counters)

    def app(self) -> App | None:
        return self.wired

    def ticked(self) -> bool:
        return self.alive

    def stuck(self) -> bool:
        return self.silent


def now() -> datetime:
    return datetime.now(UTC)


def started(
    facts: Told,
    *,
    listen: tuple[str, int] = ("127.0.0.1", 0),
    token: str | None = None,
    hosts: tuple[str, ...] = (),
    clock: Callable[[], datetime] = now,
) -> StatusServer:
    server = StatusServer(listen=listen, token=token, hosts=hosts, facts=facts, clock=clock)
    server.start()
    return server
