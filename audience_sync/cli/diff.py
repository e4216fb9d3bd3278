"""``audience-sync diff``: what the next run would tell. Sends nothing, writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from datetime import datetime
from typing import TYPE_CHECKING

import rich_click as click

from audience_sync.cli import completion
from audience_sync.cli.counting import Counting
from audience_sync.cli.diff_printers import PRINTERS, Printer
from audience_sync.cli.difference import ExaminedDifference, KeptDifference, sample
from audience_sync.cli.forecast import in_all
from audience_sync.cli.opened import Time, check_order, chosen, opened, present
from audience_sync.cli.output import warn
from audience_sync.cli.stored import stored
from audience_sync.domain.audience import Seq
from audience_sync.errors import ChunkDamaged, SourceFailed, UsageError, worst

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.pipeline.capture import Examined
    from audience_sync.pipeline.captures import CaptureOutcome, Configured

EXIT_CHANGES = 4
SEQ = click.IntRange(0, 2**31 - 1)


@click.command()
@click.argument("audiences", shell_complete=completion.audiences, nargs=-1)
@click.option("--now", type=Time(), help="Cycle time: what :now means. [default: the present]")
@click.option(
    "--format", "form", type=click.Choice(list(PRINTERS)), default="table", show_default=True
)
@click.option("--json", "as_json", is_flag=True, help="Short for --format json.")
@click.option(
    "--members", type=click.IntRange(0, 10**9), default=0, help="Show so many who change."
)
@click.option("--from", "from_seq", type=SEQ, help="From this kept snapshot; 0 is nobody.")
@click.option("--to", "to_seq", type=SEQ, help="With --from: to this one. [default: the newest]")
@click.option("--exit-code", is_flag=True, help="Exit with 4 when there are changes.")
@click.pass_context
def diff(
    context: click.Context,
    audiences: tuple[str, ...],
    now: datetime | None,
    form: str,
    as_json: bool,
    members: int,
    from_seq: int | None,
    to_seq: int | None,
    exit_code: bool,
) -> int:
    """Show what the next run would tell, per audience and destination.

    AUDIENCES are keys, names or globs; all without any. Nothing is sent and nothing is written.
    ndjson and csv list every change. With --from, what changed between two kept snapshots.
    """
    form = "json" if as_json else form
    if from_seq is not None or to_seq is not None:
        _check_kept_options(audiences, now, from_seq)
        printer = PRINTERS[form](members)
        to = None if to_seq is None else Seq(to_seq)
        changed = _show_kept(context, audiences, Seq(from_seq or 0), to, printer)
        return EXIT_CHANGES if exit_code and changed else 0
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
    with opened(context, writes=False) as app, closing(Counting(app)) as counting:
        picked = chosen(app, patterns)
        if now is not None:
            check_order(app, picked, now)
        printer, admission = PRINTERS[form](members), app.admission()
        for configured in picked:
            if (refusal := admission.refusal(configured)) is not None:
                codes += _left_out(refusal, printer)
                continue
            try:
                with _examined(app, configured, cycle_time) as examined:
                    changed |= examined.changes_something
                    printer.show(ExaminedDifference(app, examined, counting))
            except (SourceFailed, ChunkDamaged) as error:
                codes.append(error.exit_code)
                printer.failed(configured.audience.key, error)
        printer.in_all(list(in_all(app, counting)))
        _warn_of_paused(app, picked)
    printer.end()
    return worst(codes) or (EXIT_CHANGES if exit_code and changed else 0)


def _left_out(refusal: CaptureOutcome, printer: Printer) -> list[int]:
    """Say why an audience is not captured; its exit code, where that is wrong."""
    if refusal.error is None:
        warn(
            f"{refusal.audience}: {refusal.outcome} {refusal.why}, so it is not captured; "
            f"what ends it: {refusal.ends}"
        )
        return []
    printer.failed(refusal.audience, refusal.error)
    return [refusal.error.exit_code]


def _warn_of_paused(app: App, picked: Sequence[Configured]) -> None:
    stopped = app.orders.stopped()
    for name in sorted({n for c in picked for n in c.audience.destinations if n in stopped}):
        warn(
            f"{name}: paused by a person, so nothing is sent there; "
            f"what ends it: audience-sync resume --destination {name}"
        )


def _check_kept_options(
    audiences: Sequence[str], now: datetime | None, from_seq: int | None
) -> None:
    if from_seq is None:
        raise UsageError("--to needs --from")
    if now is not None:
        raise UsageError("--from and --to read no source, so --now means nothing")
    if not audiences:
        raise UsageError("--from needs an audience", hint="each counts its snapshots by itself")


def _show_kept(
    context: click.Context,
    patterns: Sequence[str],
    from_seq: Seq,
    to_seq: Seq | None,
    printer: Printer,
) -> bool:
    """Whether anything changed."""
    changed = False
    with opened(context, writes=False) as app:
        differences = [KeptDifference(app, s, from_seq, to_seq) for s in stored(app, patterns)]
        for difference in differences:
            changed = changed or any(True for _ in sample(difference, 1))
            printer.show(difference)
    printer.end()
    return changed


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
