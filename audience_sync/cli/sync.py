"""``audience-sync sync``: capture what is due and deliver what waits, once."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import rich_click as click

from audience_sync.cli.diff import show_diff
from audience_sync.cli.opened import Time, chosen, confirm, opened, present
from audience_sync.cli.progress import Progress
from audience_sync.cli.signals import stoppable
from audience_sync.cli.sync_report import JsonReport, TextReport
from audience_sync.domain.schedule import parse_duration
from audience_sync.errors import UsageError, worst

if TYPE_CHECKING:
    from audience_sync.bootstrap import App
    from audience_sync.pipeline.cycle import CaptureOutcome, Configured
    from audience_sync.pipeline.lanes import Delivered


class Duration(click.ParamType[timedelta]):
    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, context: click.Context | None
    ) -> timedelta:
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error))


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What one ``sync`` was asked for."""

    patterns: Sequence[str]
    everyone: bool
    cycle_time: datetime
    explicit_now: bool
    plans: Collection[str]

    @property
    def forced(self) -> bool:
        """Named audiences, all, or a plan: captured whether due or not."""
        return bool(self.patterns or self.everyone or self.plans)


@click.command()
@click.argument("audiences", nargs=-1)
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
        return show_diff(context, audiences, order.cycle_time, "json" if as_json else "table")
    stop = threading.Event()
    report = JsonReport() if as_json else TextReport()
    with opened(context, writes=True) as app:
        picked = chosen(app, order.patterns)
        _check(app, picked, order, yes=yes)
        if max_duration is not None:
            timer = threading.Timer(max_duration.total_seconds(), stop.set)
            timer.daemon = True
            timer.start()
        run = _Run(app=app, order=order, picked=picked, stop=stop)
        stoppable(run.work, stop)
        report.show(run.outcomes, run.delivered, run.not_due(), time.monotonic() - run.started)
        return run.exit_code()


def _cycle_time(now: datetime | None, plans: Sequence[str]) -> datetime:
    from audience_sync.pipeline.capture import plan_time

    times = {plan_time(plan) for plan in plans}
    if len(times) > 1:
        raise UsageError("the plans are for different cycle times", hint="sync them one by one")
    if times and now is not None and times != {now}:
        raise UsageError("--now is not the cycle time of the plan", hint="leave --now out")
    return now or (times.pop() if times else present())


def _check(app: App, picked: Sequence[Configured], order: Order, *, yes: bool) -> None:
    from audience_sync.pipeline.capture import check_not_backwards

    if not order.explicit_now and not order.plans:
        return
    for configured in picked:
        last = app.snapshots.last_captured(configured.audience.key)
        check_not_backwards(order.cycle_time, last)
    names = {name for configured in picked for name in configured.audience.destinations}
    real = sorted(names - app.harmless)
    if order.explicit_now and real:
        confirm(f"--now would tell {', '.join(real)} about a time of your choice. Go on?", yes=yes)


@dataclass(slots=True)
class _Run:
    app: App
    order: Order
    picked: Sequence[Configured]
    stop: threading.Event
    outcomes: list[CaptureOutcome] = field(default_factory=list)
    delivered: list[Delivered] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def work(self) -> None:
        self._capture()
        keys = {configured.audience.key for configured in self.picked}
        with Progress() as progress:
            self.delivered += self.app.deliveries(progress.show).deliver(self.stop, keys)

    def _capture(self) -> None:
        captures = self.app.captures()
        for configured in self.picked:
            if self.stop.is_set():
                return
            if self.order.forced or captures.due(configured, self.order.cycle_time):
                self.outcomes.append(
                    captures.capture(
                        configured,
                        self.order.cycle_time,
                        plans=self.order.plans,
                        only_if_due=not self.order.forced,
                    )
                )
        self._leave_out_other_plans()

    def _leave_out_other_plans(self) -> None:
        """With plans and no names all audiences are examined; only a plan nobody has is news."""
        found = {o.captured.examined.plan_id for o in self.outcomes if o.captured}
        if self.order.plans and not self.order.patterns and found.issuperset(self.order.plans):
            self.outcomes = [o for o in self.outcomes if o.outcome != "other plan"]

    def not_due(self) -> list[tuple[str, datetime]]:
        """When the audiences that were not captured are due."""
        captured = {outcome.audience for outcome in self.outcomes}
        due = []
        for configured in self.picked:
            key = configured.audience.key
            time = self.app.snapshots.next_due(key)
            if key not in captured and time is not None:
                due.append((str(key), time))
        return sorted(due, key=lambda pair: pair[1])

    def exit_code(self) -> int:
        codes = [o.error.exit_code for o in self.outcomes if o.error and o.outcome != "leased"]
        if self.order.patterns:
            codes += [75 for o in self.outcomes if o.outcome == "leased"]
        codes += [3 for o in self.outcomes if o.outcome == "held"]
        codes += [3 for d in self.delivered if d.outcome == "held"]
        codes += [d.error.exit_code for d in self.delivered if d.error]
        return worst(codes)
