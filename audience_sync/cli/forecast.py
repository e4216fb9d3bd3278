"""What a capture would mean for each destination, before anything is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audience_sync.cli.counting import Counting
from audience_sync.cli.foreseen import changes_of, resync_waits, walks
from audience_sync.cli.takes import Takes
from audience_sync.domain.audience import VALUE, Kind, Tell
from audience_sync.domain.change import is_told
from audience_sync.domain.guard import holds_initial
from audience_sync.domain.quota import Lane
from audience_sync.domain.requests import Requests
from audience_sync.domain.span import SpanState

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.pipeline.capture import Examined


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What telling one destination takes. Of two numbers of requests, ``…_at_least`` is the lower:
    what depends on whom the destination has already is not known before.

    ``requests_with_bulk``, ``days_with_bulk``: ``None`` where there is no ``bulk``.
    """

    destination: str
    lane: str
    resync: bool
    """Everybody is told anew, as a person has ordered."""
    calls: int
    at_most: bool
    """Some wait from before: a user who changed back in between is told nothing, and of one who
    was updated there may be fewer calls than of one who entered."""
    unit: str
    """What rate and quota count: ``call`` or ``request``."""
    bulk: bool
    """Whether it is used."""
    requests: int
    requests_at_least: int
    requests_with_bulk: int | None
    requests_with_bulk_at_least: int | None
    seconds: float
    days: int
    """Within which it is done; 0: nothing is told."""
    days_at_least: int
    days_with_bulk: int | None
    days_with_bulk_at_least: int | None
    quota_share: float | None
    """Of a day's quota; more than 1: several days."""
    skipped: int
    """Members who cannot be told yet."""
    held_for: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneForecast:
    """One lane of a destination that is told of several audiences.

    ``saved``: requests fewer than audience by audience.
    """

    destination: str
    lane: str
    later: bool
    """What waits until another delivery of its audience has ended."""
    audiences: int
    bulk: bool
    requests: int
    requests_at_least: int
    requests_with_bulk: int
    requests_with_bulk_at_least: int
    days: int
    days_with_bulk: int
    saved: int


def forecasts(app: App, examined: Examined, counting: Counting) -> list[Forecast]:
    """One for each destination of the audience, were the capture committed now."""
    return [_forecast(app, examined, name, counting) for name in examined.audience.destinations]


def _forecast(app: App, examined: Examined, name: str, counting: Counting) -> Forecast:
    count = app.destinations[name].count()
    if count is None:
        return _by_counts(app, examined, name)
    return _by_members(app, examined, name, counting)


def _by_members(app: App, examined: Examined, name: str, counting: Counting) -> Forecast:
    """Where requests are counted: what a member takes depends on who that is."""
    held_for = _held_for(app, examined, name)
    waits = bool(held_for or examined.verdict.held)
    calls, requests, lanes, bulk = 0, Requests(), list[Lane](), False
    for walked in walks(app, examined, name):
        counted = counting.one(name, walked, put_aside=not waits, is_later=bool(lanes))
        calls, requests = calls + counted.calls, requests + counted.requests
        lanes.append(walked.lane)
        bulk = counted.bulk
    to, takes = app.destinations[name], Takes(app, name, lanes[0])
    stored = app.books.stored_as(name, app.places[name])
    alone, together = requests.one_by_one, requests.with_bulk
    used = together if bulk else alone
    return Forecast(
        destination=name,
        lane=str(lanes[0]),
        resync=resync_waits(app, examined.audience.key, stored),
        calls=calls,
        at_most=False,
        unit=to.unit,
        bulk=bulk,
        requests=alone.most,
        requests_at_least=alone.least,
        requests_with_bulk=together.most,
        requests_with_bulk_at_least=together.least,
        seconds=takes.seconds(used.most),
        days=takes.days(alone.most),
        days_at_least=takes.days(alone.least),
        days_with_bulk=takes.days(together.most),
        days_with_bulk_at_least=takes.days(together.least),
        quota_share=used.most / to.quota if to.quota else None,
        skipped=requests.skipped,
        held_for=held_for,
    )


def in_all(app: App, counting: Counting) -> Iterator[LaneForecast]:
    """What the audiences that were looked at take, where there are several."""
    for found in counting.in_all():
        takes = Takes(app, found.destination, found.step.lane)
        alone, together = found.requests.one_by_one, found.requests.with_bulk
        yield LaneForecast(
            destination=found.destination,
            lane=str(found.step.lane),
            later=found.step.is_later,
            audiences=found.audiences,
            bulk=found.bulk,
            requests=alone.most,
            requests_at_least=alone.least,
            requests_with_bulk=together.most,
            requests_with_bulk_at_least=together.least,
            days=takes.days(alone.most),
            days_with_bulk=takes.days(together.most),
            saved=found.requests.saved,
        )


def _held_for(app: App, examined: Examined, name: str) -> str | None:
    """Why nothing is told until somebody approves."""
    audience = examined.audience
    stored = app.books.stored_as(name, app.places[name])
    for span in app.spans.unfinished(stored):
        if span.audience == audience.key:
            if span.state is not SpanState.HELD:
                return None
            return f"first delivery to {span.books.remaining:,} members waits for approval"
    if app.spans.told_seq(stored, audience.key) is not None:
        return None
    members = examined.comparison.counts.members
    return holds_initial(members, app.audiences[audience.key].limits)


def _by_counts(app: App, examined: Examined, name: str) -> Forecast:
    audience, destination = examined.audience, app.destinations[name]
    stored = app.books.stored_as(name, app.places[name])
    told = app.spans.told_seq(stored, audience.key)
    unfinished = [s for s in app.spans.unfinished(stored) if s.audience == audience.key]
    resync = resync_waits(app, audience.key, stored)
    lane = Lane.INITIAL if resync or told is None else Lane.INCREMENTAL
    changes, before = told_changes(examined), 0
    if resync:
        changes = _told_anew(app, examined, name)
    elif unfinished:
        before = unfinished[0].books.remaining
    elif told is None:
        members = examined.comparison.counts.members
        changes = {word: members for word in audience.tell if word is Tell.ENTERED}
    else:
        before = app.spans.changes_after(audience.key, told, audience.tell)
    each = {word: destination.calls_per_change(word, audience.kind) for word in Tell}
    told_of = [each[word] for word in audience.tell]
    most = max(told_of)
    calls = before * most + sum(count * each[word] for word, count in changes.items())
    mixed = lane is Lane.INCREMENTAL and most > min(told_of)
    requests = -(-calls // max(destination.max_calls // most * most, most))
    takes = Takes(app, name, lane)
    return Forecast(
        destination=name,
        lane=str(lane),
        resync=resync,
        calls=calls,
        at_most=bool(before and (mixed or any(changes.values()))),
        unit=destination.unit,
        bulk=False,
        requests=requests,
        requests_at_least=requests,
        requests_with_bulk=None,
        requests_with_bulk_at_least=None,
        seconds=takes.seconds(calls),
        days=takes.days(calls),
        days_at_least=takes.days(calls),
        days_with_bulk=None,
        days_with_bulk_at_least=None,
        quota_share=calls / destination.quota if destination.quota else None,
        skipped=0,
        held_for=_held_for(app, examined, name),
    )


def _told_anew(app: App, examined: Examined, name: str) -> Mapping[Tell, int]:
    return Counter(
        change.kind for walked in walks(app, examined, name) for change in walked.changes
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
