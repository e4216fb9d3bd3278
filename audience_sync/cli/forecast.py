"""What a capture would mean for each destination, before anything is sent."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audience_sync.domain.audience import VALUE, Kind, Tell
from audience_sync.domain.change import Change, is_told
from audience_sync.domain.guard import holds_initial
from audience_sync.domain.quota import Lane, share
from audience_sync.domain.span import SpanState

if TYPE_CHECKING:
    from audience_sync.bootstrap import App
    from audience_sync.pipeline.capture import Examined


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    destination: str
    lane: str
    calls: int
    at_most: bool
    """Some wait from before: a user who changed back in between is told nothing, and of one who
    was updated there may be fewer calls than of one who entered."""
    requests: int
    seconds: float
    held_for: str | None


def forecasts(app: App, examined: Examined) -> list[Forecast]:
    """One for each destination of the audience, were the capture committed now."""
    return [_forecast(app, examined, name) for name in examined.audience.destinations]


def _forecast(app: App, examined: Examined, name: str) -> Forecast:
    audience, destination = examined.audience, app.destinations[name]
    stored = app.books.stored_as(name, app.places[name])
    told = app.spans.told_seq(stored, audience.key)
    unfinished = [s for s in app.spans.unfinished(stored) if s.audience == audience.key]
    lane = Lane.INITIAL if told is None else Lane.INCREMENTAL
    changes, before = told_changes(examined), 0
    held_for: str | None = None
    if unfinished:
        before = unfinished[0].books.remaining
        if unfinished[0].state is SpanState.HELD:
            held_for = f"first delivery to {before:,} members waits for approval"
    elif told is None:
        members = examined.comparison.counts.members
        changes = {word: members for word in audience.tell if word is Tell.ENTERED}
        held_for = holds_initial(members, app.audiences[audience.key].limits)
    else:
        before = app.spans.changes_after(audience.key, told, audience.tell)
    each = {word: destination.calls_per_change(word, audience.kind) for word in audience.tell}
    most = max(each.values())
    calls = before * most + sum(count * each[word] for word, count in changes.items())
    mixed = lane is Lane.INCREMENTAL and most > min(each.values())
    initial_open = lane is Lane.INITIAL
    rate = destination.rate * share(lane, reserve=destination.reserve, initial_open=initial_open)
    return Forecast(
        destination=name,
        lane=str(lane),
        calls=calls,
        at_most=bool(before and (mixed or any(changes.values()))),
        requests=-(-calls // max(destination.max_calls // most * most, most)),
        seconds=calls / rate,
        held_for=held_for,
    )


def told_changes(examined: Examined) -> Mapping[Tell, int]:
    """Changes of this capture that are told; counted one by one only where counts do not say."""
    counts, audience = examined.comparison.counts, examined.audience
    found = {
        Tell.ENTERED: counts.entered,
        Tell.EXITED: counts.exited,
        Tell.UPDATED: counts.updated,
    }
    if Tell.UPDATED in audience.tell and counts.updated and not _every_update_is_told(examined):
        updated = frozenset({Tell.UPDATED})
        found[Tell.UPDATED] = sum(
            is_told(change, updated, audience.kind) for change in changes_of(examined)
        )
    return {word: found[word] for word in audience.tell}


def _every_update_is_told(examined: Examined) -> bool:
    """Whether what is stored anew is exactly what a destination hears of."""
    columns, current = examined.comparison.columns, examined.current
    if current is not None and current.columns != columns:
        return False
    return examined.audience.kind is Kind.AUDIENCE or columns.keys() == {VALUE}


def changes_of(examined: Examined) -> Generator[Change]:
    from audience_sync.store.chunk_rows import changed

    for batch in examined.comparison.changes():
        yield from changed(batch)
