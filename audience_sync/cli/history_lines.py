"""An audience's history as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from audience_sync.cli.render import clock_time, left, number, plural, table
from audience_sync.cli.sparkline import sparkline
from audience_sync.domain.span import SpanState

if TYPE_CHECKING:
    from audience_sync.cli.history import Past
    from audience_sync.domain.told import Delivery
    from audience_sync.store.events import OrderGiven, RunInTrouble, SnapshotMade

MEMBERS_COLUMN = 2
HASH = 4
"""Characters of a definition's hash that are shown."""

Row = tuple[str, ...]


def lines(past: Past, now: datetime) -> Iterator[str]:
    yield from _problems(past)
    yield from _head(past, now)
    yield from _section(
        ("SNAPSHOT", "FOR", "MEMBERS", "CHANGES", "DEFINITION", ""),
        [_snapshot(snapshot, now) for snapshot in past.snapshots],
        past.limit,
        numbers=[MEMBERS_COLUMN],
    )
    yield from _section(("RUN", "", "", ""), [_run(run, now) for run in past.runs], past.limit)
    yield from _section(
        ("ORDER", "BY", "", ""), [_order(order, now) for order in past.orders], past.limit
    )
    yield from _section(
        ("DELIVERY", "TO", "LANE", "SNAPSHOTS", "MEMBERS"),
        [_delivery(delivery, now) for delivery in past.deliveries],
        past.limit,
    )


def _problems(past: Past) -> Iterator[str]:
    for held in past.held:
        reasons = "; ".join(held.held_for)
        yield f"! held      {reasons}   audience-sync approve {held.plan_id}"
    if past.state.last_error:
        yield f"! failed    {past.state.last_error}   audience-sync diff {past.state.key}"


def _head(past: Past, now: datetime) -> Iterator[str]:
    state = past.state
    name = "" if state.name == state.key else f"{state.name}   "
    yield f"{left(state.key)}{name}{plural(state.members, 'member')}{_fate(past, now)}"
    if past.sizes:
        members = [size.members for size in past.sizes]
        since = clock_time(past.sizes[0].captured_at, now)
        yield f"{left('sizes')}{sparkline(members)}"
        yield (
            f"{left('')}{number(min(members))} to {number(max(members))} in "
            f"{plural(len(members), 'snapshot')} since {since}"
        )
    if past.kept and past.kept[0] != past.sizes[0].seq:
        yield f"{left('kept')}members from #{past.kept[0]} on; of those before only the counts"


def _fate(past: Past, now: datetime) -> str:
    state = past.state
    if state.retired_at is not None:
        return f"   retired {clock_time(state.retired_at, now)}"
    if state.paused_at is not None:
        return f"   paused since {clock_time(state.paused_at, now)}"
    return "" if past.configured else "   no longer configured"


def _section(
    head: Row, rows: Sequence[Row], limit: int | None, *, numbers: Sequence[int] = ()
) -> Iterator[str]:
    if not rows:
        return
    yield ""
    yield from table([head, *rows], numbers=numbers)
    if len(rows) == limit:
        yield f"  the newest {limit}; --limit 0 shows all"


def _snapshot(made: SnapshotMade, now: datetime) -> Row:
    changes = f"+{number(made.entered)} −{number(made.exited)}"
    changes += f" ~{number(made.updated)}" if made.updated else ""
    definition = made.definition[:HASH]
    if made.definition_before is not None:
        definition += f", was {made.definition_before[:HASH]}"
    return (
        f"#{made.seq}",
        clock_time(made.captured_at, now),
        number(made.members),
        changes,
        definition,
        "; ".join(_notes(made)),
    )


def _notes(made: SnapshotMade) -> Iterator[str]:
    if made.approval is not None:
        yield f"approved by {_who_and_why(made.approval)}"
    if refused := sum(made.refused.values()):
        yield f"{plural(refused, 'row')} refused"
    if made.duplicates:
        yield plural(made.duplicates, "duplicate")
    if not made.kept:
        yield "not kept"


def _who_and_why(order: OrderGiven) -> str:
    who = order.actor or "somebody"
    return f"{who}: {order.reason}" if order.reason else who


def _run(run: RunInTrouble, now: datetime) -> Row:
    what = f"delivery to {run.destination}" if run.destination else run.kind
    why = run.error or "; ".join(run.held_for)
    return clock_time(run.started_at, now), what, run.outcome, why


def _order(order: OrderGiven, now: datetime) -> Row:
    what = (
        order.outcome if order.outcome.startswith(order.kind) else f"{order.kind} {order.outcome}"
    )
    if order.destinations:
        what += f" for {', '.join(order.destinations)}"
    return clock_time(order.at, now), order.actor or "", what, order.reason or ""


def _delivery(delivery: Delivery, now: datetime) -> Row:
    when = delivery.ended_at or delivery.opened_at
    return (
        clock_time(when, now),
        delivery.destination,
        str(delivery.kind),
        f"#{delivery.from_seq} → #{delivery.to_seq}",
        ", ".join(_books(delivery)),
    )


def _books(delivery: Delivery) -> Iterator[str]:
    books = delivery.books
    yield f"{number(books.accepted)} accepted"
    if books.rejected:
        yield f"{number(books.rejected)} rejected"
    if books.skipped:
        yield f"{number(books.skipped)} skipped"
    if delivery.state is not SpanState.COMPLETED:
        yield f"{delivery.state}: {number(books.remaining)} of {number(books.total)} wait"
