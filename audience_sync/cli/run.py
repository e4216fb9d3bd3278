"""``audience-sync run``: the daemon."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from audience_sync.cli.output import warn
from audience_sync.cli.signals import OF_DAEMON, heard, leave, listening, stoppable
from audience_sync.errors import AudienceSyncError

if TYPE_CHECKING:
    from audience_sync.config.load import Loaded
    from audience_sync.scheduler.daemon import Daemon
    from audience_sync.scheduler.pulse import Pulse
    from audience_sync.standing.facts import Facts
    from audience_sync.web.server import StatusServer

BANNER = """\
audience-sync run: the daemon. It captures and delivers until it is stopped (Ctrl-C).
For one pass, from cron or by hand: audience-sync sync"""


@click.command()
@click.pass_context
def run(context: click.Context) -> int:
    """Capture and deliver until stopped: the daemon.

    SIGTERM and SIGINT stop it, SIGHUP has it read its configuration again. It needs no terminal
    and keeps no state but the store; several may share a store in PostgreSQL.
    """
    try:
        with listening():
            return _run(context.obj)
    except AudienceSyncError as error:
        if sys.stderr.isatty():
            raise
        _say_why(error)
        return error.exit_code


def _run(files: Sequence[Path]) -> int:
    """Until the daemon listens, a stop need not wait for what may hang: a file, a log."""
    stop = threading.Event()
    made: list[Daemon] = []
    stoppable(lambda: made.append(_made(files)), stop)
    if stop.is_set():
        return 0
    from audience_sync.scheduler.daemon import EndNow

    try:
        return made[0].run()
    except EndNow as end:
        leave(end.code)


def _made(files: Sequence[Path]) -> Daemon:
    from audience_sync import logs
    from audience_sync.scheduler.pulse import Pulse

    loaded = _read(files)
    pulse = Pulse(time.monotonic)  # which stands still in suspend
    logs.configure(loaded.secrets, pulse)
    _warn(loaded)
    if sys.stderr.isatty():
        warn(BANNER)
    return _daemon(loaded, pulse)


def _daemon(loaded: Loaded, pulse: Pulse) -> Daemon:
    from audience_sync.app import now
    from audience_sync.bootstrap import build
    from audience_sync.scheduler.daemon import Daemon
    from audience_sync.scheduler.notify import Notify
    from audience_sync.scheduler.succession import Parts
    from audience_sync.standing.counters import Counters

    parts = Parts(
        load=partial(_reread, loaded.files),
        build=partial(build, writes=True),
        serve=_server,
        clock=now,
        elapsed=_elapsed,
        counters=Counters(),
    )
    notify = Notify(os.environ, os.getpid())
    listen = partial(heard, signals=OF_DAEMON)
    return Daemon(loaded, parts, heard=listen, notify=notify, pulse=pulse)


def _server(loaded: Loaded, facts: Facts) -> StatusServer | None:
    status = loaded.config.status
    if status is None:
        return None
    from audience_sync.app import now
    from audience_sync.web.server import StatusServer

    return StatusServer(
        listen=status.listen, token=status.token, hosts=status.hosts, facts=facts, clock=now
    )


def _read(files: Sequence[Path]) -> Loaded:
    from audience_sync.config.load import load

    return load(files, os.environ)


def _reread(files: Sequence[Path]) -> Loaded:
    """The configuration as it is now. Former secrets stay secret."""
    from audience_sync import logs

    loaded = _read(files)
    logs.hide(loaded.secrets)
    _warn(loaded)
    return loaded


def _warn(loaded: Loaded) -> None:
    """In the log, as everything that a daemon says."""
    import structlog

    for warning in loaded.warnings:
        structlog.get_logger("audience_sync").warning("configuration", problem=warning)


def _say_why(error: AudienceSyncError) -> None:
    """In the log, as all that a daemon says: who reads it line by line wants this most."""
    import structlog

    from audience_sync import logs
    from audience_sync.scheduler.report import problems

    if not structlog.is_configured():
        logs.configure(())
    structlog.get_logger("audience_sync").error(
        "ended", **problems(error), exit_code=error.exit_code
    )


def _elapsed() -> float:
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)
