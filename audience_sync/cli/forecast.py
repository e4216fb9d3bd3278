"""What a capture would mean for each destination, before anything is sent."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audience_sync.domain.audience import Tell
from audience_sync.domain.guard import Counts, holds_initial
from audience_sync.domain.quota import Lane, share

if TYPE_CHECKING:
    from audience_sync.bootstrap import App
    from audience_sync.pipeline.capture import Examined


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    destination: str
    lane: str
    calls: int
    requests: int
    seconds: float
    held_for: str | None


def forecasts(app: App, examined: Examined) -> list[Forecast]:
    """One for each destination of the audience, were the capture committed now."""
    return [_forecast(app, examined, name) for name in examined.audience.destinations]


def _forecast(app: App, examined: Examined, name: str) -> Forecast:
    audience, destination = examined.audience, app.destinations[name]
    held_for: str | None = None
    told = app.spans.told_seq(name, audience.key)
    unfinished = [s for s in app.spans.unfinished(name) if s.audience == audience.key]
    lane = Lane.INITIAL if told is None else Lane.INCREMENTAL
    changes = told_changes(examined.comparison.counts, audience.tell)
    if unfinished:
        calls = unfinished[0].books.remaining + changes
    elif told is None:
        calls = examined.comparison.counts.members
        held_for = holds_initial(calls, app.audiences[audience.key].limits)
    else:
        calls = changes + app.spans.changes_after(audience.key, told)
    initial_open = lane is Lane.INITIAL
    rate = destination.rate * share(lane, reserve=destination.reserve, initial_open=initial_open)
    return Forecast(
        destination=name,
        lane=str(lane),
        calls=calls,
        requests=-(-calls // destination.max_calls),
        seconds=calls / rate,
        held_for=held_for,
    )


def told_changes(counts: Counts, tell: Collection[Tell]) -> int:
    by_kind = {
        Tell.ENTERED: counts.entered,
        Tell.EXITED: counts.exited,
        Tell.UPDATED: counts.updated,
    }
    return sum(by_kind[kind] for kind in tell)
