"""Where everything stands, read from the store: what ``status`` prints and ``/metrics`` counts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from audience_sync.domain.audience import State
from audience_sync.domain.quota import Lane
from audience_sync.standing.places import Places
from audience_sync.standing.values import (
    DestinationStanding,
    HeldCapture,
    LeftOut,
    Overview,
    PausedDestination,
    QuotaToday,
    Standing,
)

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.pipeline.admission import Admission
    from audience_sync.pipeline.captures import CaptureOutcome, Configured
    from audience_sync.pipeline.ports.capturing import Snapshot
    from audience_sync.pipeline.ports.destination import Destination
    from audience_sync.store.overview import AudienceState


def overview(app: App, now: datetime) -> Overview:
    """Read the store; ``now`` is what an ``eta`` counts from."""
    from audience_sync.store import overview as store
    from audience_sync.store.successes import rejected

    states = store.audiences(app.database)
    paused = tuple(_paused(app))
    delivered = {(d.audience, d.destination): d for d in store.deliveries(app.database)}
    resyncs = store.resyncs(app.database)
    held = {snapshot.audience: snapshot for snapshot in reversed(app.snapshots.held())}
    stopped = {place.name for place in paused}
    admission = app.admission()
    used = app.quotas.of_day(now.astimezone(UTC).date())
    refused = rejected(app.database)
    places = Places(app, now, delivered, stopped, resyncs, held.keys(), refused, used)
    return Overview(
        audiences=tuple(
            _standing(configured, states.get(key), held.get(key), places, admission)
            for key, configured in app.audiences.items()
        ),
        destinations=tuple(
            _destination(destination, used.get(name, {}))
            for name, destination in app.destinations.items()
        ),
        paused=paused,
        gone=tuple(admission.vanished()),
        gone_destinations=tuple(sorted(store.destinations(app.database) - app.destinations.keys())),
    )


def _destination(destination: Destination, used: Mapping[Lane, int]) -> DestinationStanding:
    quota = None
    if destination.quota is not None:
        by_lane = {lane: used.get(lane, 0) for lane in Lane}
        quota = QuotaToday(
            unit=destination.unit,
            limit=destination.quota,
            used=sum(used.values()),
            by_lane=by_lane,
        )
    return DestinationStanding(name=destination.name, quota=quota)


def _paused(app: App) -> list[PausedDestination]:
    stopped = app.orders.stopped()
    paused = [
        PausedDestination(name=n, reason="by a person", since=stopped[n], until=None, ordered=True)
        for n in app.destinations
        if n in stopped
    ]
    found = [(name, app.books.paused(name)) for name in app.destinations if name not in stopped]
    return paused + [
        PausedDestination(name=name, reason=pause.reason, since=pause.since, until=pause.until)
        for name, pause in found
        if pause is not None
    ]


def _standing(
    configured: Configured,
    state: AudienceState | None,
    held: Snapshot | None,
    places: Places,
    admission: Admission,
) -> Standing:
    audience = configured.audience
    return Standing(
        key=audience.key,
        name=audience.name,
        kind=str(audience.kind),
        state=_word(configured, state, held),
        members=state.members if state else 0,
        seq=state.seq if state else 0,
        captured_at=state.captured_at if state else None,
        next_due=state.next_due if state else None,
        error=state.last_error if state else None,
        held=_held(held) if held else None,
        left_out=_left_out(admission.refusal(configured)),
        destinations=tuple(places.of(audience.key, state, name) for name in audience.destinations),
    )


def _word(configured: Configured, state: AudienceState | None, held: Snapshot | None) -> str:
    if configured.state is State.RETIRED or (state and state.retired_at):
        return "retired"
    if configured.state is State.PAUSED or (state and state.paused_at):
        return "paused"
    if held:
        return "held"
    return "active" if state and state.seq else "new"


def _left_out(refusal: CaptureOutcome | None) -> LeftOut | None:
    if refusal is None:
        return None
    if refusal.error is not None:
        why, ends = str(refusal.error), refusal.error.hint
    else:
        why, ends = refusal.why or "", refusal.ends
    return LeftOut(outcome=refusal.outcome, why=why, ends=ends)


def _held(held: Snapshot) -> HeldCapture:
    return HeldCapture(
        id=held.plan_id,
        entered=held.counts.entered,
        exited=held.counts.exited,
        limit="; ".join(held.held_for),
        captured_at=held.captured_at,
    )
