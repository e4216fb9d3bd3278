"""The sandbox as a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime

from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from audience_sync.sandbox.application import Application
from audience_sync.sandbox.control import Control
from audience_sync.sandbox.existing import Existing
from audience_sync.sandbox.gate import Gate
from audience_sync.sandbox.options import Options
from audience_sync.sandbox.pages import Pages
from audience_sync.sandbox.state import State
from audience_sync.serving.server import Server

IDLE = 75
"""Seconds: longer than clients keep a connection for later, so that they do not find it cut."""


def server(
    options: Options,
    listen: tuple[str, int],
    clock: Callable[[], datetime],
    existing: Iterable[Existing] = (),
) -> Server:
    """Not started yet.

    Args:
        listen: an IP address and a port; port 0 is any that is free.
        existing: people that the first website has from the start.
    """
    state = State(options, clock, time.monotonic)
    people = state.websites[options.websites[0]]
    for known in existing:
        people.merge(people.add(known.email, known.card), known.data)
    inside = Starlette(routes=[*Pages(state).routes(), *Control(state).routes()])
    # A redirect would repeat the name by which we were called.
    inside.router.redirect_slashes = False
    app = Application(state, Gate(inside))
    made = Server(
        name="sandbox",
        setting="--listen",
        listen=listen,
        app=app,
        protocol=H11Protocol,
        idle=IDLE,
    )
    app.served_by(made)
    return made
