"""``audience-sync resync``: tell everybody's state anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rich_click as click

from audience_sync.cli import completion
from audience_sync.cli.lever import given, lever
from audience_sync.cli.opened import confirm, named, opened, places
from audience_sync.cli.output import say
from audience_sync.cli.render import duration, plural
from audience_sync.errors import UsageError

if TYPE_CHECKING:
    from audience_sync.bootstrap import App
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
        for key in keys:
            _explain(app, key, names)
        confirm("Tell them anew?", yes=yes)
        for key in keys:
            app.orders.resync(key, names, given(reason))
    say("the next sync captures, then tells everybody")
    return 0


def _explain(app: App, key: AudienceKey, names: list[str]) -> None:
    known = app.orders.known().get(key)
    if known is None or not known.told_to.intersection(names):
        raise UsageError(f"nothing was told of {key} there yet", hint="a first delivery will be")
    if known.retired_at:
        raise UsageError(f"{key} is retired")
    for name in sorted(known.told_to.intersection(names)):
        seconds = known.members / app.destinations[name].rate
        say(f"{key} → {name}  {plural(known.members, 'member')}, at least {duration(seconds)}")
