"""``audience-sync history``: what happened to one audience. All it shows stays in the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import rich_click as click

from audience_sync.cli import completion
from audience_sync.cli.history_lines import lines
from audience_sync.cli.opened import opened, present
from audience_sync.cli.output import say
from audience_sync.cli.render import to_json
from audience_sync.cli.stored import stored_one

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.domain.audience import Seq
    from audience_sync.domain.told import Delivery
    from audience_sync.pipeline.ports.capturing import Snapshot
    from audience_sync.store.events import OrderGiven, RunInTrouble, Size, SnapshotMade
    from audience_sync.store.overview import AudienceState

LIMIT = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Past:
    """All but the sizes is newest first, and at most ``limit`` of each."""

    state: AudienceState
    configured: bool
    limit: int | None
    held: Sequence[Snapshot]
    kept: Sequence[Seq]
    sizes: Sequence[Size]
    snapshots: Sequence[SnapshotMade]
    runs: Sequence[RunInTrouble]
    orders: Sequence[OrderGiven]
    deliveries: Sequence[Delivery]


@click.command()
@click.argument("audience", shell_complete=completion.audiences)
@click.option(
    "--limit",
    type=click.IntRange(0, 10**9),
    default=LIMIT,
    show_default=True,
    help="So many of each; 0: all.",
)
@click.option("--json", "as_json", is_flag=True)
@click.pass_context
def history(context: click.Context, audience: str, limit: int, as_json: bool) -> int:
    """Show the snapshots of AUDIENCE, what failed, who ordered what, and what was told.

    Newest first. AUDIENCE may be one that is no longer configured.
    """
    with opened(context, writes=False) as app:
        past = _past(app, stored_one(app, audience), limit or None)
    if as_json:
        say(to_json(_listed(past)))
    else:
        for line in lines(past, present()):
            say(line)
    return 0


def _past(app: App, state: AudienceState, limit: int | None) -> Past:
    key, kept = state.key, app.lookups.kept(state.key)
    return Past(
        state=state,
        configured=key in app.audiences,
        limit=limit,
        held=app.snapshots.held(key),
        kept=kept,
        sizes=app.histories.sizes(key),
        snapshots=app.histories.snapshots(key, limit, kept),
        runs=app.histories.trouble(key, limit),
        orders=app.histories.orders(key, limit),
        deliveries=app.histories.deliveries(key, limit),
    )


def _listed(past: Past) -> dict[str, Any]:
    state = past.state
    return {
        "audience": state.key,
        "name": state.name,
        "kind": state.kind,
        "configured": past.configured,
        "paused_at": state.paused_at,
        "retired_at": state.retired_at,
        "members": state.members,
        "seq": state.seq,
        "held": [held.plan_id for held in past.held],
        "error": state.last_error,
        "snapshots": past.snapshots,
        "runs": past.runs,
        "orders": past.orders,
        "deliveries": [_delivery(delivery) for delivery in past.deliveries],
    }


def _delivery(delivery: Delivery) -> dict[str, Any]:
    shown = asdict(delivery) | asdict(delivery.books) | {"remaining": delivery.books.remaining}
    # A position is somebody's id.
    for hidden in ("id", "position", "books", "tell"):
        del shown[hidden]
    return shown
