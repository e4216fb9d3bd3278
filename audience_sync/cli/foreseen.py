"""What the next runs would tell one destination of an audience, were its capture committed now."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import tee
from typing import TYPE_CHECKING

from audience_sync.domain.audience import AudienceKey, Kind, Seq, Tell
from audience_sync.domain.change import Change, compose_sets, is_told
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import SpanKind, SpanState
from audience_sync.domain.walk import as_state, as_told, is_told_anew, to_come

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.domain.span import Span
    from audience_sync.pipeline.capture import Examined


@dataclass(frozen=True, kw_only=True, slots=True)
class Walked:
    """One span, under way or to come. ``changes`` can be read once."""

    audience: AudienceKey
    kind: Kind
    lane: Lane
    cycle_time: datetime
    members_left: int
    """Where everybody is told."""
    tell: frozenset[Tell]
    changes: Iterable[Change]
    is_anew: bool = False
    """As a person has ordered."""


def changes_of(examined: Examined) -> Generator[Change]:
    from audience_sync.store.chunk_rows import changed

    for batch in examined.comparison.changes():
        yield from changed(batch)


def walks(app: App, examined: Examined, name: str) -> Iterator[Walked]:
    """In the order in which they are walked; the changes of one are read before the next."""
    audience = examined.audience
    stored = app.books.stored_as(name, app.places[name])
    if resync_waits(app, audience.key, stored):
        yield _anew(app, examined, stored)
        return
    told = app.spans.told_seq(stored, audience.key)
    unfinished = [s for s in app.spans.unfinished(stored) if s.audience == audience.key]
    if unfinished:
        yield of_span(app, unfinished[0])
        if unfinished[0].state is SpanState.HELD:
            return
        yield _later(app, examined, stored, unfinished[0].to_seq)
    elif told is None:
        yield _first(examined)
    else:
        yield _later(app, examined, stored, told)


def resync_waits(app: App, key: AudienceKey, stored: str) -> bool:
    """Whether the next run tells everybody anew, in the place of whatever is under way."""
    from audience_sync.store import overview

    return (key, stored) in overview.resyncs(app.database)


def of_span(app: App, span: Span) -> Walked:
    """What is left of one."""
    return Walked(
        audience=span.audience,
        kind=span.audience_kind,
        lane=span.lane,
        cycle_time=span.captured_at,
        members_left=span.books.remaining if span.lane is Lane.INITIAL else 0,
        tell=span.tell,
        changes=app.spans.changes(span),
        is_anew=span.kind is SpanKind.RESYNC,
    )


def everybody(app: App, key: AudienceKey, now: datetime) -> Walked:
    """All members of the newest snapshot, told anew."""
    known = app.orders.known()[key]
    members = app.spans.net(key, Seq(0), known.seq) if known.seq else iter(())
    return Walked(
        audience=key,
        kind=known.kind,
        lane=Lane.INITIAL,
        cycle_time=now,
        members_left=known.members,
        tell=frozenset({Tell.ENTERED}),
        changes=(Change(user_id=c.user_id, before=c.after, after=c.after) for c in members),
        is_anew=True,
    )


def _first(examined: Examined) -> Walked:
    audience = examined.audience
    return Walked(
        audience=audience.key,
        kind=audience.kind,
        lane=Lane.INITIAL,
        cycle_time=examined.cycle_time,
        members_left=examined.comparison.counts.members,
        tell=audience.tell,
        changes=_members(examined) if Tell.ENTERED in audience.tell else (),
    )


def _members(examined: Examined) -> Iterator[Change]:
    from audience_sync.store.chunk_rows import entered

    for batch in examined.comparison.members():
        yield from entered(batch)


def _anew(app: App, examined: Examined, stored: str) -> Walked:
    """A capture is read once at a time, so all who need its changes read them side by side."""
    audience, newest = examined.audience, examined.from_seq
    points = app.spans.told_of(stored, audience.key)
    first, *others = tee(changes_of(examined), 1 + len(points))
    since = [
        (point.up_to, compose_sets([app.spans.net(audience.key, point.seq, newest), changes]))
        for point, changes in zip(points, others, strict=True)
    ]
    members = compose_sets([app.spans.net(audience.key, Seq(0), newest), first])
    standing = (replace(s, retry=True) for s in app.spans.standing(stored, audience.key))
    return Walked(
        audience=audience.key,
        kind=audience.kind,
        lane=Lane.INITIAL,
        cycle_time=examined.cycle_time,
        members_left=examined.comparison.counts.members,
        tell=audience.tell,
        changes=to_come(
            as_told(members, since),
            standing,
            is_told_anew(audience.tell),
            # Whoever is a member is among the members.
            lambda user_ids: {user_id: as_state(user_id, None) for user_id in user_ids},
        ),
        is_anew=True,
    )


def _later(app: App, examined: Examined, stored: str, told: Seq) -> Walked:
    audience = examined.audience
    changes = to_come(
        compose_sets([app.spans.net(audience.key, told, examined.from_seq), changes_of(examined)]),
        app.spans.standing(stored, audience.key),
        partial(is_told, tell=audience.tell, kind=audience.kind),
        partial(_unchanged, app, examined),
    )
    return Walked(
        audience=audience.key,
        kind=audience.kind,
        lane=Lane.INCREMENTAL,
        cycle_time=examined.cycle_time,
        members_left=0,
        tell=audience.tell,
        changes=changes,
    )


def _unchanged(app: App, examined: Examined, user_ids: Sequence[str]) -> Mapping[str, Change]:
    found = app.lookups.state_at(examined.audience.key, examined.from_seq, user_ids)
    return {user_id: as_state(user_id, row) for user_id, row in found.items()}
