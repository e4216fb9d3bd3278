"""Where one audience stands at one destination."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from audience_sync.domain.audience import AudienceKey, Seq
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Books, SpanState
from audience_sync.pipeline.lane_time import lane_time
from audience_sync.standing.values import HeldDelivery, Place

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.store.overview import AudienceState, DeliveryState


@dataclass(frozen=True, slots=True)
class Places:
    app: App
    now: datetime
    delivered: Mapping[tuple[AudienceKey, str], DeliveryState]
    paused: set[str]
    resyncs: set[tuple[AudienceKey, str]]
    held: Collection[AudienceKey]
    """Audiences with a capture that waits for approval."""
    rejected: Mapping[tuple[AudienceKey, str], int]
    """Who stands rejected, where there are any."""
    used: Mapping[str, Mapping[Lane, int]]
    """Of today's quotas."""
    _etas: dict[tuple[str, Lane], dict[int, datetime]] = field(default_factory=dict)

    def of(self, key: AudienceKey, state: AudienceState | None, name: str) -> Place:
        place = self._at(key, state, name)
        return replace(place, stand_rejected=self.rejected.get((key, name), 0))

    def _at(self, key: AudienceKey, state: AudienceState | None, name: str) -> Place:
        delivery = self.delivered.get((key, name))
        if state and state.retired_at and state.paused_at:
            return _left(name, delivery)
        if delivery is None:
            return self._first(state, name)
        place = self._of(key, state, name, delivery)
        return replace(place, up_to_date_at=self._up_to_date_at(delivery, state, place))

    def _of(
        self, key: AudienceKey, state: AudienceState | None, name: str, delivery: DeliveryState
    ) -> Place:
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

    def _up_to_date_at(
        self, delivery: DeliveryState, state: AudienceState | None, place: Place
    ) -> datetime | None:
        if state is None:
            return None
        from audience_sync.store.successes import last_completion

        database, key = self.app.database, delivery.audience
        completed = delivery.ended_at
        if delivery.state is not SpanState.COMPLETED:
            completed = last_completion(database, key, delivery.destination)
        times = (completed, self._told_all_at(delivery, state, place))
        return max((time for time in times if time is not None), default=None)

    def _told_all_at(
        self, delivery: DeliveryState, state: AudienceState, place: Place
    ) -> datetime | None:
        """The last capture that found nothing but what had been told."""
        if place.lane is Lane.INITIAL and place.state != "ok":
            return None  # a resync: what was told is in doubt
        if place.state == "ok" and delivery.audience not in self.held:
            return state.captured_at
        from audience_sync.store.successes import last_capture

        return last_capture(self.app.database, delivery.audience, delivery.told_seq or Seq(0))

    def _word(self, delivery: DeliveryState) -> str:
        if delivery.state is SpanState.COMPLETED:
            return "ok"
        if delivery.state is SpanState.OPEN and delivery.destination in self.paused:
            return "paused"
        return str(delivery.state)

    def _eta(self, delivery: DeliveryState) -> datetime | None:
        """At the configured rate and quota, without a break from now on."""
        lane = delivery.destination, delivery.lane
        if lane not in self._etas:
            self._etas[lane] = self._etas_of(*lane)
        return self._etas[lane].get(delivery.span_id)

    def _etas_of(self, name: str, lane: Lane) -> dict[int, datetime]:
        """By span: those that are walked together are done together, any other after those that
        are walked before it. One that is gone nobody walks."""
        from audience_sync.pipeline.amount_left import amount_left
        from audience_sync.pipeline.turns import in_turns

        to, used = self.app.destinations[name], self.used.get(name, {})
        opened = [
            span
            for span in self.app.spans.unfinished(name, lane)
            if span.state is SpanState.OPEN and span.audience in self.app.audiences
        ]
        etas, amount = dict[int, datetime](), 0
        for walked in in_turns(to, lane, opened, now=self.now, used=used):
            amount += amount_left(to, self.app.spans, walked)
            takes = lane_time(to, lane, amount, now=self.now, used=used)
            etas |= {span.id: self.now + takes for span in walked}
        return etas


def _left(name: str, delivery: DeliveryState | None) -> Place:
    """Retired, and nobody is told of it: what was told stays, nothing waits."""
    return _place(
        name,
        "left",
        Lane.INCREMENTAL,
        told_seq=delivery.told_seq if delivery else None,
        to_seq=delivery.to_seq if delivery else 0,
        books=Books(total=0),
    )


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
