"""``audience-sync export``: who is, or was, in an audience."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import rich_click as click

from audience_sync.cli import completion
from audience_sync.cli.member_files import WRITERS, destined
from audience_sync.cli.opened import opened
from audience_sync.cli.output import say
from audience_sync.cli.render import plural
from audience_sync.cli.stored import stored_one
from audience_sync.domain.audience import Seq
from audience_sync.errors import UsageError


@click.command()
@click.argument("audience", shell_complete=completion.audiences)
@click.option(
    "--at",
    type=click.IntRange(1, 2**31 - 1),
    metavar="SEQ",
    help="Snapshot; `history` shows which are kept. [default: the newest]",
)
@click.option(
    "--format", "form", type=click.Choice(list(WRITERS)), default="csv", show_default=True
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File, written over when it is whole. [default: standard output]",
)
@click.pass_context
def export(
    context: click.Context, audience: str, at: int | None, form: str, output: Path | None
) -> int:
    """Write the members of AUDIENCE, sorted by user_id, with all that they carry."""
    from audience_sync.engines.columns import members_schema

    with opened(context, writes=False) as app:
        state = stored_one(app, audience)
        if not state.seq:
            raise UsageError(f"no snapshot of {state.key} yet", hint="audience-sync sync makes one")
        seq = Seq(at or state.seq)
        membership = app.snapshots.membership(state.key, seq)
        with destined(output, form) as file, closing(app.members.read(membership)) as batches:
            writer = WRITERS[form](file, members_schema(membership.columns))
            for batch in batches:
                writer.write(batch)
            writer.close()
    if output is not None:
        say(f"{state.key} #{seq}: {plural(membership.members, 'member')} written to {output}")
    return 0
