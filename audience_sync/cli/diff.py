"""``audience-sync diff``: what the next run would tell. Sends nothing, writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING

import rich_click as click

from audience_sync.cli.diff_printers import PRINTERS
from audience_sync.cli.opened import Time, check_order, chosen, opened, present
from audience_sync.errors import SourceFailed, worst

if TYPE_CHECKING:
    from audience_sync.bootstrap import App
    from audience_sync.pipeline.capture import Examined
    from audience_sync.pipeline.captures import Configured

EXIT_CHANGES = 4


@click.command()
@click.argument("audiences", nargs=-1)
@click.option("--now", type=Time(), help="Cycle time: what :now means. [default: the present]")
@click.option(
    "--format", "form", type=click.Choice(list(PRINTERS)), default="table", show_default=True
)
@click.option("--json", "as_json", is_flag=True, help="Short for --format json.")
@click.option(
    "--members", type=click.IntRange(0, 10**9), default=0, help="Show so many who change."
)
@click.option("--exit-code", is_flag=True, help="Exit with 4 when there are changes.")
@click.pass_context
def diff(
    context: click.Context,
    audiences: tuple[str, ...],
    now: datetime | None,
    form: str,
    as_json: bool,
    members: int,
    exit_code: bool,
) -> int:
    """Show what the next run would tell, per audience and destination.

    AUDIENCES are keys, names or globs; all without any. Nothing is sent and nothing is written.
    ndjson and csv list every change.
    """
    form = "json" if as_json else form
    return show_diff(context, audiences, now, form, members, exit_code=exit_code)


def show_diff(
    context: click.Context,
    patterns: Sequence[str],
    now: datetime | None,
    form: str,
    members: int = 0,
    *,
    exit_code: bool = False,
) -> int:
    """Examine and print; also ``sync --dry-run``.

    Args:
        now: an explicit cycle time.

    Raises:
        UsageError: ``now`` is before a last capture, so that a run would refuse it too.
    """
    cycle_time = now or present()
    codes: list[int] = []
    changed = False
    with opened(context, writes=False) as app:
        picked = chosen(app, patterns)
        if now is not None:
            check_order(app, picked, now)
        printer = PRINTERS[form](members)
        for configured in picked:
            try:
                with _examined(app, configured, cycle_time) as examined:
                    changed |= examined.changes_something
                    printer.show(app, examined)
            except SourceFailed as error:
                codes.append(error.exit_code)
                printer.failed(configured, error)
    printer.end()
    return worst(codes) or (EXIT_CHANGES if exit_code and changed else 0)


def _examined(
    app: App, configured: Configured, cycle_time: datetime
) -> AbstractContextManager[Examined]:
    from audience_sync.pipeline.capture import examine

    return examine(
        configured.audience,
        source=configured.source,
        engine=app.engine,
        snapshots=app.snapshots,
        limits=configured.limits,
        cycle_time=cycle_time,
    )
