"""``audience-sync db copy``: from SQLite to PostgreSQL, or the other way."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import rich_click as click

from audience_sync.cli.opened import confirm, load
from audience_sync.cli.output import say
from audience_sync.cli.render import plural, table
from audience_sync.cli.signals import withheld
from audience_sync.errors import UsageError


@click.command()
@click.option("--to", "url", required=True, metavar="URL", help="Of an empty database.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def copy(context: click.Context, url: str, yes: bool) -> int:
    """Copy the whole store to URL, which may hold ${VAR} and ${file:…}.

    A run with the copy goes on exactly where this store stands. Never run with both.
    """
    from audience_sync.store.copy import check, copy
    from audience_sync.store.engine import Database

    config = load(context).config
    with (
        withheld(),
        closing(Database(config.store.url)) as source,
        closing(Database(_store_url(url))) as target,
    ):
        check(source, target)
        confirm(f"Copy {source} to {target}?", yes=yes)
        members = copy(source, target)
        rows = [(key, f"{plural(count, 'member')} read back") for key, count in members.items()]
        for line in table(rows):
            say(line)
        say(f"copied {plural(len(members), 'audience')} to {target}")
        say("  next: set [store] url to it, and never run with the old store again")
    return 0


def _store_url(written: str) -> str:
    """What ``[store] url`` would be, relative to the working directory. No error shows it."""
    from audience_sync import logs
    from audience_sync.config.address import absolute_file, secrets_of, store_url
    from audience_sync.config.interpolate import fill

    filled = fill(written, os.environ, Path.cwd())
    for problem, hint in filled.problems:
        raise UsageError(f"--to {problem}", hint=hint)
    logs.hide({*filled.secrets, *secrets_of(filled.text)})
    try:
        return store_url(absolute_file(filled.text, Path.cwd()))
    except ValueError as error:
        raise UsageError(f"--to {error}") from None
