"""``audience-sync db restored``: after the store came back from a backup."""

from __future__ import annotations

from contextlib import closing

import rich_click as click

from audience_sync.cli.lever import given, lever
from audience_sync.cli.opened import confirm, load
from audience_sync.cli.output import say
from audience_sync.cli.signals import withheld
from audience_sync.errors import UsageError


@click.command()
@lever
@click.pass_context
def restored(context: click.Context, reason: str | None, yes: bool) -> int:
    """Have everybody's state told anew: the store came back from a backup.

    It cannot know whom destinations were told of after the backup was taken.
    """
    from audience_sync.app import now
    from audience_sync.store import migrate
    from audience_sync.store.engine import Database
    from audience_sync.store.restored import restored, to_tell_anew

    config = load(context).config
    with withheld(), closing(Database(config.store.url)) as database:
        if migrate.version(database) is None:
            raise UsageError("there is no store here", hint="restore it first, or check [store]")
        migrate.upgrade(database)
        pairs = to_tell_anew(database)
        for key, destination in pairs:
            say(f"{key} → {destination}")
        confirm("Tell everybody's state anew there?", yes=yes)
        restored(database, given(reason), now())
    say("restored: the next sync captures, then tells everybody's state anew")
    say("  not known here: who entered after the backup was taken and has left again;")
    say("  they keep the trait true. Forget again whom you forgot since the backup.")
    return 0
