"""``audience-sync approve``: a person's yes (or no) to what the guard holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rich_click as click

from audience_sync.cli.opened import confirm, opened
from audience_sync.cli.render import number, plural
from audience_sync.errors import UsageError

if TYPE_CHECKING:
    from audience_sync.bootstrap import App
    from audience_sync.domain.span import Span
    from audience_sync.pipeline.ports import Snapshot


@click.command()
@click.argument("plan")
@click.option("--discard", is_flag=True, help="Drop the held capture instead.")
@click.option("--reason", help="Kept in the audience's history.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def approve(context: click.Context, plan: str, discard: bool, reason: str | None, yes: bool) -> int:
    """Let exactly the held PLAN go. `status` and `sync` show its id."""
    with opened(context, writes=True) as app:
        held = _only([s for s in app.snapshots.held() if s.plan_id.startswith(plan)], plan)
        if held is not None:
            _capture(app, held, discard=discard, reason=reason, yes=yes)
            return 0
        spans = [span for span in app.spans.held() if span.plan_id.startswith(plan)]
        if len({span.plan_id for span in spans}) > 1:
            raise UsageError(f"{plan} is the beginning of several plans", hint="type more of it")
        if not spans:
            raise UsageError(f"nothing is held as {plan}", hint="audience-sync status")
        if discard:
            raise UsageError(
                "a first delivery that is held sends nothing; it cannot be discarded",
                hint="take the destination out of the audience instead",
            )
        _first_deliveries(app, spans, reason=reason, yes=yes)
    return 0


def _only(found: list[Snapshot], plan: str) -> Snapshot | None:
    exact = [s for s in found if s.plan_id == plan] or found
    if len(exact) > 1:
        raise UsageError(f"{plan} is the beginning of several plans", hint="type more of it")
    return exact[0] if exact else None


def _capture(app: App, held: Snapshot, *, discard: bool, reason: str | None, yes: bool) -> None:
    counts = held.counts
    click.echo(
        f"{held.audience}  {number(counts.previous)} → {number(counts.members)}   "
        f"+{number(counts.entered)} −{number(counts.exited)}   held: {'; '.join(held.held_for)}"
    )
    confirm("Discard it?" if discard else "Let it go?", yes=yes)
    with app.leases.hold(f"capture:{held.audience}") as lease:
        decide: Any = app.snapshots.discard if discard else app.snapshots.approve
        decide(held, lease, reason=reason)
    click.echo("discarded" if discard else "approved; the next sync tells it")


def _first_deliveries(app: App, spans: list[Span], *, reason: str | None, yes: bool) -> None:
    for span in spans:
        seconds = span.books.total / app.destinations[span.destination].rate
        click.echo(
            f"{span.audience} → {span.destination}  first delivery to "
            f"{plural(span.books.total, 'member')}, at least {seconds / 60:,.0f} min"
        )
    confirm("Let it go?", yes=yes)
    for span in spans:
        app.spans.approve(span, reason=reason)
    click.echo("approved; the next sync tells it")
