"""``audience-sync sync``: capture what is due and deliver what waits, once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import rich_click as click

from audience_sync.cli import completion
from audience_sync.cli.diff import show_diff
from audience_sync.cli.opened import Time, check_order, chosen, confirm, opened, present
from audience_sync.cli.output import complain
from audience_sync.cli.signals import stoppable
from audience_sync.cli.sync_report import JsonReport, TextReport
from audience_sync.cli.sync_run import Order, SyncRun
from audience_sync.domain.schedule import parse_duration
from audience_sync.errors import Held, UsageError

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.pipeline.captures import Configured


class Duration(click.ParamType[timedelta]):
    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, context: click.Context | None
    ) -> timedelta:
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error))


@click.command()
@click.argument("audiences", shell_complete=completion.audiences, nargs=-1)
@click.option("--all", "everyone", is_flag=True, help="All audiences, due or not.")
@click.option("--now", type=Time(), help="Cycle time: what :now means. [default: the present]")
@click.option("--plan", "plans", multiple=True, help="Commit only exactly this plan of diff.")
@click.option("--max-duration", type=Duration(), help='Stop cleanly after this time, e.g. "50m".')
@click.option("--dry-run", is_flag=True, help="The same as diff.")
@click.option("--yes", is_flag=True, help="Allow --now towards real destinations.")
@click.option("--json", "as_json", is_flag=True)
@click.pass_context
def sync(
    context: click.Context,
    audiences: tuple[str, ...],
    everyone: bool,
    now: datetime | None,
    plans: tuple[str, ...],
    max_duration: timedelta | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Capture what is due (or named), then deliver: incremental first, then initial.

    AUDIENCES are keys, names or globs. What is not finished goes on with the next call, so
    this is all that cron, a systemd timer or a CronJob needs.
    """
    order = Order(
        patterns=audiences,
        everyone=everyone,
        cycle_time=_cycle_time(now, plans),
        explicit_now=now is not None,
        plans=plans,
    )
    if dry_run:
        return show_diff(context, audiences, now, "json" if as_json else "table")
    with opened(context, writes=True) as app:
        picked = _picked(app, order)
        if order.explicit_now:
            _confirm_time(app, picked, yes=yes)
        run = SyncRun(app, order, picked)
        _work(run, max_duration)
        report = JsonReport() if as_json else TextReport()
        report.show(run.captured, run.delivered, run.not_due(), run.stopped(), run.seconds())
        if run.failure is not None:
            complain(run.failure)
        return run.exit_code()


def _work(run: SyncRun, max_duration: timedelta | None) -> None:
    stop = threading.Event()
    seconds = max_duration.total_seconds() if max_duration else None
    stoppable(lambda: run.work(stop), stop, seconds=seconds)


def _cycle_time(now: datetime | None, plans: Sequence[str]) -> datetime:
    if not plans:
        return now or present()
    from audience_sync.pipeline.capture import plan_time

    times = {plan_time(plan) for plan in plans}
    if len(times) > 1:
        raise UsageError("the plans are for different cycle times", hint="sync them one by one")
    if times and now is not None and times != {now}:
        raise UsageError("--now is not the cycle time of the plan", hint="leave --now out")
    return times.pop()


def _picked(app: App, order: Order) -> list[Configured]:
    """The audiences that the order is about, none of them captured after its cycle time.

    Raises:
        UsageError: an unknown audience, or ``--now`` before the last capture.
        Held: a plan that was overtaken by a capture.
    """
    picked = chosen(app, order.patterns)
    if order.plans:
        return _not_overtaken(app, order, picked)
    if order.explicit_now:
        check_order(app, picked, order.cycle_time)
    return picked


def _not_overtaken(app: App, order: Order, picked: Sequence[Configured]) -> list[Configured]:
    """A plan says nothing of audiences that were captured since; of one that it names it does."""
    current = []
    for configured in picked:
        last = app.snapshots.last_captured(configured.audience.key)
        if last is None or last <= order.cycle_time:
            current.append(configured)
        elif order.patterns:
            key = configured.audience.key
            hint = f"read the new plan: audience-sync diff {key}"
            raise Held(f"{key} was captured after this plan was made", hint=hint)
    if not current:
        raise Held("everything was captured after this plan was made", hint="audience-sync diff")
    return current


def _confirm_time(app: App, picked: Sequence[Configured], *, yes: bool) -> None:
    names = {name for configured in picked for name in configured.audience.destinations}
    real = sorted(names - app.harmless)
    if real:
        confirm(f"--now would tell {', '.join(real)} about a time of your choice. Go on?", yes=yes)
