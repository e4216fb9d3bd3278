"""``audience-sync status``: where everything stands, problems first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import rich_click as click

from audience_sync.cli.opened import opened, place_of, present
from audience_sync.cli.output import say, warn
from audience_sync.cli.render import ago, clock_time, duration, number, plural, table, to_json
from audience_sync.domain.quota import Lane
from audience_sync.standing.overview import overview
from audience_sync.standing.values import LeftOut, Overview, PausedDestination, Place, Standing

EXIT_TROUBLE = 4
MEMBERS_COLUMN = 1

Row = tuple[str, ...]


@click.command()
@click.option("--json", "as_json", is_flag=True)
@click.option("--exit-code", is_flag=True, help="Exit with 4 when something needs a person.")
@click.pass_context
def status(context: click.Context, as_json: bool, exit_code: bool) -> int:
    """Show audiences, deliveries, and what needs a person."""
    now = present()
    with opened(context, writes=False) as app:
        if app.absent is not None:
            where = place_of(app.absent)
            warn(f"no store at {where}: the next run makes a new one, and tells every member")
        found = overview(app, now)
        names = list(app.destinations)
    problems = list(_problems(found, now))
    if as_json:
        say(to_json(found))
    else:
        audiences = _audiences(found.audiences, names, now)
        for line in [*table(problems), *audiences, *_quotas(found), *_gone(found)]:
            say(line)
    return EXIT_TROUBLE if exit_code and problems else 0


def _problems(found: Overview, now: datetime) -> Iterator[Row]:
    """What is wrong with what, and the next command beside it."""
    for standing in found.audiences:
        yield from _problems_of(standing, now)
    for paused in found.paused:
        todo = f"resume --destination {paused.name}" if paused.ordered else ""
        yield f"! {paused.name}", "paused", _paused(paused, found.audiences, now), todo
    for key in found.gone:
        yield f"! {key}", "gone", "no longer configured; nothing is told about it", f"retire {key}"


def _problems_of(standing: Standing, now: datetime) -> Iterator[Row]:
    if (left_out := standing.left_out) and left_out.outcome != "retired":
        yield _left_out(standing.key, left_out)
    if held := standing.held:
        for_long = f"held {duration((now - held.captured_at).total_seconds())}"
        yield f"! {standing.key}", for_long, held.limit, f"approve {held.id}"
    if standing.error:
        yield f"! {standing.key}", "failed", standing.error, f"diff {standing.key}"
    for place in standing.destinations:
        if place.held:
            what = f"{place.name}: {place.held.limit}"
            yield f"! {standing.key}", "held", what, f"approve {place.held.id}"


def _left_out(key: str, left_out: LeftOut) -> Row:
    """A person who has paused it knows why; else who or what wants it so is told."""
    todo = (left_out.ends or "").removeprefix("audience-sync ")
    why = left_out.why
    if left_out.outcome == "paused":
        why = "neither captured nor told" + (f", {why}" if "state" in why else "")
    return f"! {key}", left_out.outcome, why, todo


def _paused(paused: PausedDestination, standings: Sequence[Standing], now: datetime) -> str:
    places = [place for standing in standings for place in standing.destinations]
    waiting = sum(place.remaining for place in places if place.name == paused.name)
    text = f"{paused.reason} since {clock_time(paused.since, now)}"
    if paused.until is not None and paused.until > now:
        text += f", goes on {clock_time(paused.until, now)}"
    return f"{text}; nothing lost, {plural(waiting, 'member')} wait"


def _audiences(standings: Sequence[Standing], names: Sequence[str], now: datetime) -> list[str]:
    head = ("AUDIENCE", "MEMBERS", "CAPTURED", "NEXT", *(name.upper() for name in names))
    rows = [_row(standing, names, now) for standing in standings]
    return table([head, *rows], numbers=[MEMBERS_COLUMN])


def _row(standing: Standing, names: Sequence[str], now: datetime) -> Row:
    captured = standing.captured_at
    places = {place.name: place for place in standing.destinations}
    return (
        standing.key,
        number(standing.members),
        f"{clock_time(captured, now)} ({ago(captured, now)})" if captured else "never",
        _next(standing, now),
        *(_cell(places.get(name)) for name in names),
    )


def _next(standing: Standing, now: datetime) -> str:
    if standing.state in ("paused", "retired"):
        return standing.state
    return clock_time(standing.next_due, now) if standing.next_due else "next run"


def _cell(place: Place | None) -> str:
    if place is None:
        return "–"
    if place.state == "open" and place.lane is Lane.INITIAL and place.total:
        return f"initial {100 * (place.total - place.remaining) // place.total} %"
    if place.state == "resync":
        return "resync waits"
    if place.state in ("waiting", "open", "paused"):
        return f"{number(place.remaining)} wait"
    if place.state == "ok" and place.stand_rejected:
        return f"ok, {number(place.stand_rejected)} rejected"
    return place.state


def _quotas(found: Overview) -> Iterator[str]:
    for destination in found.destinations:
        if quota := destination.quota:
            used = f"{number(quota.used)} of {plural(quota.limit, quota.unit)}"
            yield f"{destination.name} {used} today"


def _gone(found: Overview) -> Iterator[str]:
    for standing in found.audiences:
        if (left_out := standing.left_out) and left_out.outcome == "retired":
            yield f"{standing.key} is retired {left_out.why}; what ends it: {left_out.ends}"
    for name in found.gone_destinations:
        yield f"{name} is no longer configured; nothing is told there"
