"""``audience-sync approve``: a person's yes (or no) to what the guard holds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import rich_click as click

from audience_sync.actor import actor
from audience_sync.cli.counting import first_delivery_time
from audience_sync.cli.foreseen import of_span
from audience_sync.cli.opened import confirm, opened
from audience_sync.cli.output import say
from audience_sync.cli.render import duration, number, plural
from audience_sync.errors import UsageError

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.domain.span import Span
    from audience_sync.pipeline.ports.capturing import Snapshot


@click.command()
@click.argument("plan")
@click.option("--discard", is_flag=True, help="Drop the held capture instead.")
@click.option("--reason", help="Kept in the audience's history.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def approve(context: click.Context, plan: str, discard: bool, reason: str | None, yes: bool) -> int:
    """Let exactly the held PLAN go. `status` and `sync` show its id."""
    from audience_sync.pipeline.capture import plan_time

    plan_time(plan)
    with opened(context, writes=True) as app:
        captures, deliveries = app.snapshots.held(), app.spans.held()
        _check_one(plan, {*(h.plan_id for h in captures), *(h.plan_id for h in deliveries)})
        snapshots = [held for held in captures if held.plan_id.startswith(plan)]
        spans = [held for held in deliveries if held.plan_id.startswith(plan)]
        if snapshots:
            _capture(app, snapshots[0], discard=discard, reason=reason, yes=yes)
        else:
            _first_deliveries(app, spans, discard=discard, reason=reason, yes=yes)
    return 0


def _check_one(plan: str, held: Collection[str]) -> None:
    found = [one for one in held if one.startswith(plan)]
    if not found:
        # A diff of now compares the same with another time in front.
        content = plan.partition("-")[2]
        alike = sorted(one for one in held if content and one.partition("-")[2] == content)
        hint = f"the same is held as {alike[0]}" if alike else "audience-sync status shows what is"
        raise UsageError(f"nothing is held as {plan}", hint=hint)
    if len(found) > 1:
        raise UsageError(f"{plan} is the beginning of several plans", hint="type more of it")


def _capture(app: App, held: Snapshot, *, discard: bool, reason: str | None, yes: bool) -> None:
    counts = held.counts
    say(
        f"{held.audience}  {number(counts.previous)} → {number(counts.members)}   "
        f"+{number(counts.entered)} −{number(counts.exited)}   held: {'; '.join(held.held_for)}"
    )
    newer = [other for other in app.snapshots.held(held.audience) if other.id > held.id]
    if newer and not discard:
        say(f"  newer, and lost by this: {', '.join(other.plan_id for other in newer)}")
    confirm("Discard it?" if discard else "Let it go?", yes=yes)
    with app.patient_leases.hold(f"capture:{held.audience}") as lease:
        if discard:
            app.snapshots.discard(held, lease, reason=reason, actor=actor())
        else:
            app.snapshots.approve(held, lease, reason=reason, actor=actor())
    say("discarded" if discard else "approved; the next sync tells it")


def _first_deliveries(
    app: App, spans: Sequence[Span], *, discard: bool, reason: str | None, yes: bool
) -> None:
    if discard:
        raise UsageError(
            "a first delivery that is held sends nothing; it cannot be discarded",
            hint="take the destination out of the audience instead",
        )
    for span in spans:
        say(
            f"{span.audience} → {span.destination}  first delivery to "
            f"{plural(span.books.total, 'member')}{_shortest(app, span)}"
        )
    confirm("Let it go?", yes=yes)
    for span in spans:
        app.spans.approve(span, reason=reason, actor=actor())
    say("approved; the next sync tells it")


def _shortest(app: App, span: Span) -> str:
    if span.destination not in app.destinations:
        return "; the destination is not configured"
    seconds = first_delivery_time(app, span.destination, of_span(app, span))
    return f", at least {duration(seconds)}"
