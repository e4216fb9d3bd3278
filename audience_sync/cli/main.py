"""``audience-sync``: the group of commands, and the way errors reach a person.

Nothing heavy is imported here or at the top of a command: ``--help`` must be quick.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich_click as click

from audience_sync.cli.approve import approve
from audience_sync.cli.check import check
from audience_sync.cli.completion import config_files
from audience_sync.cli.config_schema import config
from audience_sync.cli.db import db
from audience_sync.cli.diff import diff
from audience_sync.cli.explain import explain
from audience_sync.cli.export import export
from audience_sync.cli.forget import forget
from audience_sync.cli.history import history
from audience_sync.cli.init import init
from audience_sync.cli.output import complain, finish, mute, prepare, warn
from audience_sync.cli.pause import pause, resume
from audience_sync.cli.rejections import rejections
from audience_sync.cli.resync import resync
from audience_sync.cli.retire import retire
from audience_sync.cli.run import run
from audience_sync.cli.sandbox import sandbox
from audience_sync.cli.send import send
from audience_sync.cli.signals import released
from audience_sync.cli.status import status
from audience_sync.cli.sync import sync
from audience_sync.errors import AudienceSyncError

EXIT_BUG = 70
EXIT_BROKEN_DISK = 74
BROKEN_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
"""Wherever it happens, nobody here can do anything about it."""
EXIT_INTERRUPTED = 130


class Commands(click.RichGroup):
    """A group in which a reader of our output who leaves early, as ``head`` does, is no error."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Whatever is said on the command line can be stored and shown."""
        for argument in args:
            shown = argument.encode(errors="backslashreplace").decode()
            if shown != argument:
                raise click.UsageError(f"{shown} is not UTF-8 text", context)
        return super().parse_args(context, args)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BrokenPipeError:
            mute(sys.stdout)
            return 0


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
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
    if context.invoked_subcommand != run.name:
        released()
    context.obj = config_files(files)


COMMANDS = (
    *(init, check, diff, sync, run, status, history, explain, export),
    *(approve, forget, config, db),
    *(pause, resume, resync, retire, rejections, send, sandbox),
)
for command in COMMANDS:
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code (interface.md, "Exit codes")."""
    prepare()
    threading.excepthook = _show_bug_of_thread
    code = finish(_run(arguments))
    # An error holds the session it came from in a cycle, and DuckDB complains of it at exit.
    gc.collect()
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        if run.name not in (sys.argv if arguments is None else arguments):
            released()
        outcome = cli.main(arguments, prog_name="audience-sync", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except click.ClickException as wrong:
        _show_usage(wrong)
        return wrong.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except AudienceSyncError as error:
        complain(error)
        return error.exit_code
    except OSError as error:
        if error.errno in BROKEN_DISK:
            warn(f"audience-sync: {error.strerror}")
            return EXIT_BROKEN_DISK
        _show_bug(error)
        return EXIT_BUG
    except Exception as bug:
        _show_bug(bug)
        return EXIT_BUG


def _show_usage(wrong: click.ClickException) -> None:
    try:
        wrong.show()
    except OSError:
        mute(sys.stderr)


def _show_bug(bug: BaseException) -> None:
    """Class and place only: a message could hold a secret or a person's data."""
    import traceback

    from audience_sync.logs import named

    whole = os.environ.get("AUDIENCE_SYNC_TRACEBACK")
    if whole:
        warn("".join(traceback.format_exception(bug)))
    warn(f"audience-sync: this is a bug: {named(bug)}")
    if not whole:
        warn("  AUDIENCE_SYNC_TRACEBACK=1 shows all of it, for a report")


def _show_bug_of_thread(thread: threading.ExceptHookArgs) -> None:
    """A thread that nobody waits for; Python would print the message too."""
    if thread.exc_value is not None:
        _show_bug(thread.exc_value)
