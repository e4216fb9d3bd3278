"""From the command line to a wired program, and from patterns to audiences."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from click.exceptions import Exit

from audience_sync.cli.output import warn
from audience_sync.cli.signals import withheld
from audience_sync.domain.schedule import FIRST_YEAR, LAST_YEAR, is_cycle_time
from audience_sync.errors import UsageError

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.config.load import Loaded
    from audience_sync.domain.audience import AudienceKey
    from audience_sync.pipeline.captures import Configured
    from audience_sync.store.engine import Database

EXIT_DECLINED = 1


def load(context: click.Context) -> Loaded:
    """The configuration; its warnings go to stderr, its secrets into no output."""
    from audience_sync import logs
    from audience_sync.config.load import load as read

    paths: tuple[Path, ...] = context.obj
    loaded = read(paths, os.environ)
    logs.configure(loaded.secrets)
    for warning in loaded.warnings:
        warn(f"warning: {warning}")
    return loaded


@contextmanager
def opened(context: click.Context, *, writes: bool, offline: bool = False) -> Iterator[App]:
    """The wired program. None of the threads it starts takes a signal from the main one."""
    loaded = load(context)
    # Only now: a mistake in the configuration is told before what takes longest.
    from audience_sync.bootstrap import build

    with withheld():
        app = build(loaded, writes=writes, offline=offline)
    if app.is_new:
        _say_new(app.database)
    try:
        yield app
    finally:
        app.close()


def _say_new(store: Database) -> None:
    """So looks a first run, but also one whose disk is gone."""
    warn(f"new store: {place_of(store)} knows of nobody who was told, so every member is told")


def place_of(store: Database) -> str:
    """Its file, from here if it is below, or its address without a password."""
    path, here = store.path, Path.cwd()
    is_below = path is not None and path.is_relative_to(here) and here != Path(here.root)
    return str(path.relative_to(here) if path and is_below else store)


def chosen(app: App, patterns: Sequence[str]) -> list[Configured]:
    """Audiences by key, name or glob; all without a pattern.

    Raises:
        UsageError: a pattern matches nothing.
    """
    everyone = list(app.audiences.values())
    if not patterns:
        return everyone
    picked: list[Configured] = []
    for pattern in patterns:
        matches = [c for c in everyone if _matches(c, pattern)]
        if not matches:
            known = ", ".join(sorted(app.audiences))
            raise UsageError(f"no audience {pattern}", hint=f"there are: {known}")
        picked += [c for c in matches if c not in picked]
    return picked


def _matches(configured: Configured, pattern: str) -> bool:
    audience = configured.audience
    return pattern == audience.name or fnmatch.fnmatchcase(audience.key, pattern)


def named(app: App, patterns: Sequence[str]) -> list[AudienceKey]:
    """Keys of audiences that are configured or in the store, by key, name or glob.

    Raises:
        UsageError: a pattern matches nothing.
    """
    names = {known.key: known.name for known in app.orders.known().values()}
    names |= {key: configured.audience.name for key, configured in app.audiences.items()}
    picked: list[AudienceKey] = []
    for pattern in patterns:
        found = [k for k, n in names.items() if pattern == n or fnmatch.fnmatchcase(k, pattern)]
        if not found:
            raise UsageError(
                f"no audience {pattern}", hint=f"there are: {', '.join(sorted(names))}"
            )
        picked += [key for key in sorted(found) if key not in picked]
    return picked


def places(app: App, names: Sequence[str]) -> list[str]:
    """Configured destinations; all without a name.

    Raises:
        UsageError: one is not configured.
    """
    for name in names:
        if name not in app.destinations:
            known = ", ".join(sorted(app.destinations))
            raise UsageError(f"no destination {name}", hint=f"there are: {known}")
    return list(names or app.destinations)


def check_order(app: App, picked: Sequence[Configured], cycle_time: datetime) -> None:
    """Raises UsageError when an explicit ``--now`` is before the last capture of one that is due
    to be captured at all."""
    from audience_sync.pipeline.capture import check_not_backwards

    admission = app.admission()
    for configured in picked:
        if admission.refusal(configured) is not None:
            continue
        last = app.snapshots.last_captured(configured.audience.key)
        check_not_backwards(cycle_time, last)


class Time(click.ParamType[datetime]):
    """ISO 8601, to the second; a date is its midnight, without a zone it is UTC."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, context: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            time = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value} is not a time such as 2026-01-31 or 2026-01-31T06:00Z")
        zoned = time if time.tzinfo else time.replace(tzinfo=UTC)
        if not is_cycle_time(zoned):
            self.fail(f"{value} is not between {FIRST_YEAR} and {LAST_YEAR}")
        return zoned.astimezone(UTC).replace(microsecond=0)


def present() -> datetime:
    """The cycle time when none is given: now, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal; elsewhere ``--yes`` is the answer.

    Raises:
        UsageError: nobody can be asked.
        Exit: the answer was no.
    """
    if yes:
        return
    if not os.isatty(0):
        raise UsageError(f"{question} Nobody can be asked here.", hint="say it with --yes")
    if not click.confirm(question, err=True):
        warn("nothing was changed")
        raise Exit(EXIT_DECLINED)
