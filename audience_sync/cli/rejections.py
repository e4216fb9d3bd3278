"""``audience-sync rejections``: members that a destination was not told, and telling them again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import rich_click as click

from audience_sync.cli import completion
from audience_sync.cli.lever import given, lever
from audience_sync.cli.opened import confirm, named, opened, places, present
from audience_sync.cli.output import say, write
from audience_sync.cli.render import clock_time, number, plural, table, to_json

if TYPE_CHECKING:
    from audience_sync.store.rejections import Rejection


@click.command()
@click.argument("audiences", shell_complete=completion.audiences, nargs=-1)
@click.option(
    "--destination",
    "destinations",
    multiple=True,
    shell_complete=completion.destinations,
    help="Only there.",
)
@click.option("--retry", is_flag=True, help="Have them told again by the next sync.")
@click.option("--limit", type=click.IntRange(1, 10**9), default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="All of them, as JSON.")
@lever
@click.pass_context
def rejections(
    context: click.Context,
    audiences: tuple[str, ...],
    destinations: tuple[str, ...],
    retry: bool,
    limit: int,
    as_json: bool,
    reason: str | None,
    yes: bool,
) -> int:
    """Show members that were rejected or skipped, and why; of all AUDIENCES without a name.

    They are told again when their row changes, or after --retry, always with their state of then.
    """
    with opened(context, writes=retry) as app:
        keys, names = named(app, audiences or ["*"]), places(app, destinations)
        found = app.rejections.unresolved(keys, names)
        if retry:
            waiting = sum(not one.again for one in found)
            if waiting:
                confirm(f"Tell {plural(waiting, 'member')} again?", yes=yes)
            count = app.orders.retry(keys, names, given(reason))
            say(f"{plural(count, 'member')} will be told again by the next sync")
        elif as_json:
            _write_json(found)
        else:
            _show(found, limit)
    return 0


def _write_json(found: Iterator[Rejection]) -> None:
    """Bit by bit: there may be millions."""
    write('{"rejections": [', flush=False)
    for position, one in enumerate(found):
        write((", " if position else "") + to_json(one), flush=False)
    write("]}\n")


def _show(found: Iterator[Rejection], limit: int) -> None:
    now = present()
    rows = [
        (
            one.audience,
            one.destination,
            one.outcome,
            one.user_id,
            clock_time(one.recorded_at, now),
            one.reason + (" (will be told again)" if one.again else ""),
        )
        for one in islice(found, limit)
    ]
    if not rows:
        say("nobody stands rejected or skipped")
        return
    head = ("AUDIENCE", "DESTINATION", "OUTCOME", "USER_ID", "SINCE", "REASON")
    for line in table([head, *rows]):
        say(line)
    if more := sum(1 for _ in found):
        say(f"… and {number(more)} more; --json shows all")
