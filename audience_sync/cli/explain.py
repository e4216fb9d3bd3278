"""``audience-sync explain``: what a user is and was in, and what each destination was told."""

from __future__ import annotations

import rich_click as click

from audience_sync.cli.episodes import Episode, Finder
from audience_sync.cli.explain_lines import lines, listed
from audience_sync.cli.opened import opened, present
from audience_sync.cli.output import say
from audience_sync.cli.render import to_json
from audience_sync.errors import UsageError


@click.command()
@click.argument("users", metavar="USER…", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True)
@click.pass_context
def explain(context: click.Context, users: tuple[str, ...], as_json: bool) -> int:
    """Show what each USER (id or e-mail) is and was in, and what each destination was told."""
    found: dict[str, list[Episode]] = {}
    unknown: list[str] = []
    with opened(context, writes=False) as app:
        finder = Finder(app)
        for user in users:
            episodes = {user_id: finder.episodes(user_id) for user_id in finder.ids(user)}
            met = {user_id: of_one for user_id, of_one in episodes.items() if of_one}
            found |= met
            unknown += [] if met else [user]
        asked = finder.forgotten(unknown)
    if as_json:
        say(to_json({"users": [listed(user_id, found[user_id]) for user_id in found]}))
    else:
        _print(found)
    if unknown:
        # The operator typed it, so it may be said.
        hint = f"asked to be forgotten: {', '.join(asked)}" if asked else None
        raise UsageError(f"no user {', '.join(unknown)} in anything that is kept", hint=hint)
    return 0


def _print(found: dict[str, list[Episode]]) -> None:
    now = present()
    for number, (user_id, episodes) in enumerate(found.items()):
        if number:
            say("")
        for line in lines(user_id, episodes, now):
            say(line)
