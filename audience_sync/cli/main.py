"""``audience-sync``: the group of commands, and the way errors reach a person.

Nothing heavy is imported here or at the top of a command: ``--help`` must be quick.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import rich_click as click
from click.exceptions import Exit

from audience_sync.cli.approve import approve
from audience_sync.cli.check import check
from audience_sync.cli.config_schema import config
from audience_sync.cli.db import db
from audience_sync.cli.diff import diff
from audience_sync.cli.init import init
from audience_sync.cli.status import status
from audience_sync.cli.sync import sync
from audience_sync.errors import AudienceSyncError

EXIT_BUG = 70
EXIT_INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(None, "--version", package_name="audience-sync")
@click.option(
    "--config",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Configuration file; several are merged, later ones win. "
    "[default: $AUDIENCE_SYNC_CONFIG, or config.toml]",
)
@click.pass_context
def cli(context: click.Context, files: tuple[Path, ...]) -> None:
    """Keep "who is in which audience" true in the tools you talk to customers with."""
    named = os.environ.get("AUDIENCE_SYNC_CONFIG")
    context.obj = files or (Path(named or "config.toml"),)


for command in (init, check, diff, sync, status, approve, config, db):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code (interface.md, "Exit codes")."""
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        outcome = cli.main(arguments, prog_name="audience-sync", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except Exit as ended:
        return ended.exit_code
    except click.ClickException as wrong:
        wrong.show()
        return wrong.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does. What was to be done is done.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except AudienceSyncError as error:
        _show(error)
        return error.exit_code
    except Exception as bug:
        _show_bug(bug)
        return EXIT_BUG


def _show(error: AudienceSyncError) -> None:
    click.echo(f"audience-sync: {error}", err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)


def _show_bug(bug: Exception) -> None:
    """Class and place only: a message could hold a secret or a person's data."""
    if os.environ.get("AUDIENCE_SYNC_TRACEBACK"):
        traceback.print_exception(bug)
    frame = traceback.extract_tb(bug.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    click.echo(f"audience-sync: this is a bug: {type(bug).__name__} at {place}", err=True)
    click.echo("  AUDIENCE_SYNC_TRACEBACK=1 shows all of it, for a report", err=True)
