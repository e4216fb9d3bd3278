"""``audience-sync pause`` and ``resume``: leave audiences or destinations alone for a while."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import rich_click as click

from audience_sync.cli import completion
from audience_sync.cli.lever import given, lever, not_retired
from audience_sync.cli.opened import confirm, named, opened, places
from audience_sync.cli.output import say
from audience_sync.errors import UsageError

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.domain.audience import AudienceKey, Kind


@click.command()
@click.argument("audiences", shell_complete=completion.audiences, nargs=-1)
@click.option(
    "--destination",
    "destinations",
    multiple=True,
    shell_complete=completion.destinations,
    help="Send nothing there.",
)
@click.option("--all", "everything", is_flag=True, help="All audiences and destinations.")
@lever
@click.pass_context
def pause(
    context: click.Context,
    audiences: tuple[str, ...],
    destinations: tuple[str, ...],
    everything: bool,
    reason: str | None,
    yes: bool,
) -> int:
    """Leave AUDIENCES or destinations alone until `resume`.

    A paused audience is neither captured nor told; a paused destination is told nothing, while
    captures go on. Nothing is lost. A run that is at work stops there within a batch.
    """
    with opened(context, writes=True) as app:
        keys, names = _meant(app, audiences, destinations, everything)
        confirm(f"Pause {', '.join([*keys, *names])}?", yes=yes)
        for key in keys:
            app.orders.pause(key, *_named(app, key), given(reason))
        for name in names:
            app.orders.stop(name, given(reason))
    say(f"paused: {', '.join([*keys, *names])}")
    return 0


@click.command()
@click.argument("audiences", shell_complete=completion.audiences, nargs=-1)
@click.option(
    "--destination",
    "destinations",
    multiple=True,
    shell_complete=completion.destinations,
    help="Send there again.",
)
@click.option("--all", "everything", is_flag=True, help="All audiences and destinations.")
@lever
@click.pass_context
def resume(
    context: click.Context,
    audiences: tuple[str, ...],
    destinations: tuple[str, ...],
    everything: bool,
    reason: str | None,
    yes: bool,
) -> int:
    """Go on with AUDIENCES or destinations that were paused; the next run does."""
    with opened(context, writes=True) as app:
        keys, names = _meant(app, audiences, destinations, everything)
        paused = {known.key for known in app.orders.known().values() if known.paused_at}
        stopped = {*app.orders.stopped(), *(n for n in names if app.books.paused(n))}
        keys, names = [k for k in keys if k in paused], [n for n in names if n in stopped]
        if not keys and not names:
            say("nothing of that is paused")
            return 0
        confirm(f"Resume {', '.join([*keys, *names])}?", yes=yes)
        for key in keys:
            app.orders.resume(key, given(reason))
        for name in names:
            app.orders.go_on(name, given(reason))
    say(f"resumed: {', '.join([*keys, *names])}")
    return 0


def _meant(
    app: App, audiences: Sequence[str], destinations: Sequence[str], everything: bool
) -> tuple[list[AudienceKey], list[str]]:
    if everything and not audiences and not destinations:
        return not_retired(app, list(app.audiences)), list(app.destinations)
    if everything or bool(audiences) == bool(destinations):
        raise UsageError("name audiences, or --destination, or say --all")
    keys = not_retired(app, named(app, audiences))
    if audiences and not keys:
        raise UsageError(f"{', '.join(audiences)}: retired, which is for good")
    return keys, places(app, destinations) if destinations else []


def _named(app: App, key: AudienceKey) -> tuple[str, Kind]:
    """The name and kind of an audience, which may never have been captured."""
    configured = app.audiences.get(key)
    about = configured.audience if configured else app.orders.known()[key]
    return about.name, about.kind
