"""What a capture would mean for each destination, before anything is sent."""

from __future__ import annotations

from collections.abc import Generator
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
    """Some wait from before: a user who changed back in between is told nothing."""
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
        changes = examined.comparison.counts.members
        held_for = holds_initial(changes, app.audiences[audience.key].limits)
    else:
        before = app.spans.changes_after(audience.key, told, audience.tell)
    calls = before + changes
    initial_open = lane is Lane.INITIAL
    rate = destination.rate * share(lane, reserve=destination.reserve, initial_open=initial_open)
    return Forecast(
        destination=name,
        lane=str(lane),
        calls=calls,
        at_most=bool(before and changes),
        requests=-(-calls // destination.max_calls),
        seconds=calls / rate,
        held_for=held_for,
    )


def told_changes(examined: Examined) -> int:
    """Changes of this capture that are told; counted one by one only where counts do not say."""
    counts, audience = examined.comparison.counts, examined.audience
    tell = audience.tell
    if Tell.UPDATED in tell and counts.updated and not _every_update_is_told(examined):
        changes = changes_of(examined)
        return sum(1 for change in changes if is_told(change, tell, audience.kind))
    by_kind = {
        Tell.ENTERED: counts.entered,
        Tell.EXITED: counts.exited,
        Tell.UPDATED: counts.updated,
    }
    return sum(by_kind[kind] for kind in tell)


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
