"""What is served, and where."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from audience_sync.standing.facts import TICKS_WITHIN, Facts
from audience_sync.web.access import Access
from audience_sync.web.gate import Gate
from audience_sync.web.latest import Latest
from audience_sync.web.metrics import Metrics
from audience_sync.web.readiness import READY, SILENT, Readiness

HERE = """\
audience-sync
/metrics   for Prometheus: where everything stands
/healthz   200 while all threads work, or are idle as they should
/readyz    200 while the store can be used
"""

ASK_AGAIN = 1.0
"""Seconds for which an answer of the store is told again: more probes ask it no more often."""

PATIENCE = 2.0
"""Seconds that a probe waits for the store."""


class Answers:
    """One method for each path."""

    def __init__(self, facts: Facts, clock: Callable[[], datetime]) -> None:
        self._facts = facts
        self._metrics = Metrics(facts, clock)
        ask = Readiness(facts).state
        self._store = Latest("readiness", ask, fresh=ASK_AGAIN, patience=PATIENCE)

    async def here(self, _request: Request) -> Response:
        return PlainTextResponse(HERE)

    async def healthz(self, _request: Request) -> Response:
        if not self._facts.ticked():
            text = f"the main loop has stood still for {TICKS_WITHIN:.0f} s\n"
            return PlainTextResponse(text, 503)
        if self._facts.stuck():
            return PlainTextResponse("a thread is stuck\n", 503)
        return PlainTextResponse("ok\n")

    async def readyz(self, _request: Request) -> Response:
        try:
            state = await self._store.get()
        except TimeoutError:
            state = SILENT
        return PlainTextResponse(f"{state}\n", 200 if state == READY else 503)

    async def metrics(self, request: Request) -> Response:
        text, content_type = await self._metrics.text(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})


def application(facts: Facts, access: Access, clock: Callable[[], datetime]) -> ASGIApp:
    answers = Answers(facts, clock)
    app = Starlette(
        routes=[
            Route("/", answers.here),
            Route("/healthz", answers.healthz),
            Route("/readyz", answers.readyz),
            Route("/metrics", answers.metrics),
        ]
    )
    # A redirect would repeat the name by which we were called.
    app.router.redirect_slashes = False
    return Gate(app, access)
