"""``audience-sync resync``: tell everybody's state anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import rich_click as click

from audience_sync.cli import completion
from audience_sync.cli.counting import first_delivery_time
from audience_sync.cli.foreseen import everybody
from audience_sync.cli.lever import given, lever
from audience_sync.cli.opened import confirm, named, opened, places, present
from audience_sync.cli.output import say
from audience_sync.cli.render import duration, plural
from audience_sync.domain.audience import State
from audience_sync.errors import UsageError

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.domain.audience import AudienceKey


@click.command()
@click.argument("audiences", shell_complete=completion.audiences, nargs=-1, required=True)
@click.option(
    "--destination",
    "destinations",
    multiple=True,
    shell_complete=completion.destinations,
    help="Only there.",
)
@lever
@click.pass_context
def resync(
    context: click.Context,
    audiences: tuple[str, ...],
    destinations: tuple[str, ...],
    reason: str | None,
    yes: bool,
) -> int:
    """Tell everybody's state of AUDIENCES anew, after the next capture.

    Every member is told, and `false` goes to all who were told `true` and have left. The capture
    passes the guard like any other. What is being delivered is given up for it.
    """
    with opened(context, writes=True) as app:
        keys, names = named(app, audiences), places(app, destinations)
        refused = {key: why for key in keys if (why := _why_not(app, key, names))}
        if len(refused) == len(keys):
            raise UsageError("; ".join(refused.values()))
        for key in keys:
            for line in [refused[key]] if key in refused else _sentences(app, key, names):
                say(line)
        confirm("Tell them anew?", yes=yes)
        for key in keys:
            if key not in refused:
                app.orders.resync(key, names, given(reason))
    say("the next sync captures, then tells everybody")
    return 0


def _why_not(app: App, key: AudienceKey, names: Sequence[str]) -> str | None:
    known = app.orders.known().get(key)
    if known and known.retired_at:
        return f"{key} is retired, which is for good"
    if key not in app.audiences:
        return f"{key} is no longer configured, so it is not captured"
    if known is None or not known.told_to.intersection(names):
        return f"{key}: nothing was told of it there yet; a first delivery will be"
    return None


def _sentences(app: App, key: AudienceKey, names: Sequence[str]) -> Iterator[str]:
    known, state = app.orders.known()[key], app.audiences[key].state
    for name in sorted(known.told_to.intersection(names)):
        seconds = first_delivery_time(app, name, everybody(app, key, present()))
        yield f"{key} → {name}  {plural(known.members, 'member')}, at least {duration(seconds)}"
    if known.paused_at or state is State.PAUSED:
        yield f"  {key} is paused: it waits until that ends"
