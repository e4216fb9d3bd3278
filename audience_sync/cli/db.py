"""``audience-sync db``: the store's schema."""

from __future__ import annotations

import rich_click as click

from audience_sync.cli.db_copy import copy
from audience_sync.cli.db_restored import restored
from audience_sync.cli.opened import load
from audience_sync.cli.output import say
from audience_sync.cli.render import to_json


@click.group()
def db() -> None:
    """Look after the store."""


db.add_command(copy)
db.add_command(restored)


@db.command()
@click.pass_context
def upgrade(context: click.Context) -> int:
    """Make the store, or bring it to this version's schema."""
    from audience_sync.store import migrate
    from audience_sync.store.engine import Database

    database = Database(load(context).config.store.url)
    try:
        done = migrate.upgrade(database)
    finally:
        database.close()
    say(f"schema {migrate.HEAD}" + ("" if done else ", as it was"))
    return 0


@db.command()
@click.option("--json", "as_json", is_flag=True)
@click.pass_context
def current(context: click.Context, as_json: bool) -> int:
    """Show the schema of the store and of this version."""
    from audience_sync.store import migrate
    from audience_sync.store.engine import Database

    database = Database(load(context).config.store.url)
    try:
        found = migrate.version(database)
    finally:
        database.close()
    if as_json:
        say(to_json({"store": found, "program": migrate.HEAD}))
    else:
        say(f"store: {found or 'none yet'}   this version: {migrate.HEAD}")
    return 0
