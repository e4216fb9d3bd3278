"""Where everything stands, as values: what ``status`` prints, and its JSON as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from audience_sync.domain.audience import AudienceKey, Seq, State, Tell
from audience_sync.domain.quota import Lane, share
from audience_sync.domain.span import Books, SpanState

if TYPE_CHECKING:
    from audience_sync.bootstrap import App
    from audience_sync.pipeline.captures import Configured
    from audience_sync.pipeline.ports import Snapshot
    from audience_sync.store.overview import AudienceState, DeliveryState


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldCapture:
    """``limit``: the reasons, each with the limit that was passed."""

    id: str
    entered: int
    exited: int
    limit: str
    captured_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldDelivery:
    id: str
    limit: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One audience at one destination.

    ``state``: ``new`` (never captured), ``waiting`` (the next run opens a span), ``resync`` (as
    soon as it was captured), ``open``, ``paused``, ``held``
    or ``ok``. The counts are members of the span, or of the one to come.
    """

    name: str
    lane: Lane
    state: str
    told_seq: int | None
    to_seq: int
    total: int
    accepted: int
    rejected: int
    skipped: int
    remaining: int
    eta: datetime | None = None
    held: HeldDelivery | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """One audience. ``state``: ``new``, ``active``, ``held``, ``paused`` or ``retired``."""

    key: AudienceKey
    name: str
    kind: str
    state: str
    members: int
    seq: int
    captured_at: datetime | None
    next_due: datetime | None
    error: str | None
    held: HeldCapture | None
    destinations: tuple[Place, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PausedDestination:
    """``ordered``: by a person, so that it goes on only when somebody resumes it."""

    name: str
    reason: str
    since: datetime
    until: datetime | None
    ordered: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """``gone``, ``gone_destinations``: in the store, but no longer in the configuration.

    An audience that is retired is not gone: nobody need do anything about it.
    """

    audiences: tuple[Standing, ...]
    paused: tuple[PausedDestination, ...]
    gone: tuple[AudienceKey, ...]
    gone_destinations: tuple[str, ...]


def overview(app: App, now: datetime) -> Overview:
    """Read the store; ``now`` is what an ``eta`` counts from."""
    from audience_sync.store import overview as store

    states = store.audiences(app.database)
    paused = tuple(_paused(app))
    delivered = {(d.audience, d.destination): d for d in store.deliveries(app.database)}
    resyncs = store.resyncs(app.database)
    places = _Places(app, now, delivered, {place.name for place in paused}, resyncs)
    held = {snapshot.audience: snapshot for snapshot in reversed(app.snapshots.held())}
    return Overview(
        audiences=tuple(
            _standing(configured, states.get(key), held.get(key), places)
            for key, configured in app.audiences.items()
        ),
        paused=paused,
        gone=tuple(app.admission().vanished()),
        gone_destinations=tuple(sorted(store.destinations(app.database) - app.destinations.keys())),
    )


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
    configured: Configured, state: AudienceState | None, held: Snapshot | None, places: _Places
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


def _held(held: Snapshot) -> HeldCapture:
    return HeldCapture(
        id=held.plan_id,
        entered=held.counts.entered,
        exited=held.counts.exited,
        limit="; ".join(held.held_for),
        captured_at=held.captured_at,
    )


@dataclass(frozen=True, slots=True)
class _Places:
    app: App
    now: datetime
    delivered: Mapping[tuple[AudienceKey, str], DeliveryState]
    paused: set[str]
    resyncs: set[tuple[AudienceKey, str]]

    def of(self, key: AudienceKey, state: AudienceState | None, name: str) -> Place:
        delivery = self.delivered.get((key, name))
        if delivery is None:
            return self._first(state, name)
        if state and (key, name) in self.resyncs:
            return self._anew(delivery, state)
        ended = delivery.state in (SpanState.COMPLETED, SpanState.ABANDONED)
        if ended and state and state.seq > (delivery.told_seq or 0):
            return self._behind(delivery, state)
        return self._newest(delivery)

    def _first(self, state: AudienceState | None, name: str) -> Place:
        captured = state is not None and state.seq > 0
        members = state.members if state else 0
        return _place(
            name,
            "waiting" if captured else "new",
            Lane.INITIAL,
            told_seq=None,
            to_seq=state.seq if state else 0,
            books=Books(total=members),
        )

    def _anew(self, delivery: DeliveryState, state: AudienceState) -> Place:
        return _place(
            delivery.destination,
            "resync",
            Lane.INITIAL,
            told_seq=delivery.told_seq,
            to_seq=state.seq,
            books=Books(total=state.members),
        )

    def _behind(self, delivery: DeliveryState, state: AudienceState) -> Place:
        tell = self.app.audiences[delivery.audience].audience.tell
        told_seq = delivery.told_seq or Seq(0)
        waiting = self.app.spans.changes_after(delivery.audience, told_seq, tell)
        return _place(
            delivery.destination,
            "waiting",
            Lane.INCREMENTAL,
            told_seq=delivery.told_seq,
            to_seq=state.seq,
            books=Books(total=waiting),
        )

    def _newest(self, delivery: DeliveryState) -> Place:
        word = self._word(delivery)
        held = None
        if delivery.state is SpanState.HELD:
            held = HeldDelivery(id=delivery.plan_id, limit=delivery.held_for or "")
        return _place(
            delivery.destination,
            word,
            delivery.lane,
            told_seq=delivery.told_seq,
            to_seq=delivery.to_seq,
            books=delivery.books,
            eta=self._eta(delivery) if word == "open" else None,
            held=held,
        )

    def _word(self, delivery: DeliveryState) -> str:
        if delivery.state is SpanState.COMPLETED:
            return "ok"
        if delivery.state is SpanState.OPEN and delivery.destination in self.paused:
            return "paused"
        return str(delivery.state)

    def _eta(self, delivery: DeliveryState) -> datetime:
        """At the configured rate, were it walked without a break from now on."""
        destination, lane = self.app.destinations[delivery.destination], delivery.lane
        part = share(lane, reserve=destination.reserve, initial_open=lane is Lane.INITIAL)
        kind = self.app.audiences[delivery.audience].audience.kind
        calls = delivery.books.remaining * destination.calls_per_change(Tell.ENTERED, kind)
        return self.now + timedelta(seconds=calls / (destination.rate * part))


def _place(
    name: str,
    state: str,
    lane: Lane,
    *,
    told_seq: int | None,
    to_seq: int,
    books: Books,
    eta: datetime | None = None,
    held: HeldDelivery | None = None,
) -> Place:
    return Place(
        name=name,
        lane=lane,
        state=state,
        told_seq=told_seq,
        to_seq=to_seq,
        total=books.total,
        accepted=books.accepted,
        rejected=books.rejected,
        skipped=books.skipped,
        remaining=books.remaining,
        eta=eta,
        held=held,
    )
