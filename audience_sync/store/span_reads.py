"""Spans as they are stored. Reading needs no lease."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import (
    Row,
    Select,
    func,
    select,
)

from audience_sync.domain.audience import AudienceKey, Kind, Seq, Tell
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Books, Span, SpanKind, SpanState
from audience_sync.domain.walk import Standing
from audience_sync.pipeline.ports.delivering import Waiting
from audience_sync.store import rejections
from audience_sync.store.pair import Pair, of_pair
from audience_sync.store.rejections import rejected_before
from audience_sync.store.resyncs import captured_since_request
from audience_sync.store.schema import (
    audience,
    destination,
    resync,
    snapshot,
    span,
    told,
)
from audience_sync.store.waiting import unfinished, waiting_in
from audience_sync.store.walks import Point, Walks


class SpanReads(Walks):
    """The reading half of ``pipeline.ports.Spans``."""

    def unfinished(self, destination_name: str, lane: Lane | None = None) -> list[Span]:
        """Open and held spans of a destination, oldest first."""
        query = spans_with_names().where(destination.c.name == destination_name, unfinished())
        if lane is not None:
            query = query.where(span.c.lane == lane)
        with self._database.read() as connection:
            return [span_of(row) for row in connection.execute(query.order_by(span.c.id))]

    def under_way(self, destination_name: str, lane: Lane) -> set[AudienceKey]:
        query = (
            select(audience.c.key)
            .join(span, span.c.audience_id == audience.c.id)
            .join(destination, destination.c.id == span.c.destination_id)
            .where(destination.c.name == destination_name, span.c.lane == lane)
            .where(span.c.state == SpanState.OPEN)
        )
        with self._database.read() as connection:
            return {AudienceKey(key) for key in connection.scalars(query)}

    def superseded(self, destination_name: str, lane: Lane) -> list[Span]:
        query = (
            spans_with_names()
            .join(resync, of_pair(resync, span.c.audience_id, span.c.destination_id))
            .where(destination.c.name == destination_name, span.c.lane == lane, unfinished())
            .where(resync.c.span_id.is_distinct_from(span.c.id), captured_since_request())
        )
        with self._database.read() as connection:
            return [span_of(row) for row in connection.execute(query)]

    def wanted(self, walked: Span) -> bool:
        query = (
            select(span.c.id)
            .join(audience, audience.c.id == span.c.audience_id)
            .join(destination, destination.c.id == span.c.destination_id)
            .where(span.c.id == walked.id, span.c.state == SpanState.OPEN)
            .where(audience.c.paused_at.is_(None), destination.c.stopped_at.is_(None))
        )
        with self._database.read() as connection:
            if connection.scalar(query) is None:
                return False
        return all(
            other.id != walked.id for other in self.superseded(walked.destination, walked.lane)
        )

    def waiting(self, destination_name: str, keys: Collection[AudienceKey]) -> list[Waiting]:
        """Which of ``keys`` need a new span to ``destination_name``."""
        with self._database.read() as connection:
            return waiting_in(connection, destination_name, keys)

    def told_seq(self, destination_name: str, key: AudienceKey) -> Seq | None:
        query = (
            select(told.c.told_seq)
            .join(audience)
            .join(destination, destination.c.id == told.c.destination_id)
            .where(audience.c.key == key, destination.c.name == destination_name)
        )
        with self._database.read() as connection:
            found = connection.scalar(query)
        return None if found is None else Seq(found)

    def changes_after(self, key: AudienceKey, seq: Seq, tell: Collection[Tell]) -> int:
        """At most so many changes since snapshot ``seq`` are told."""
        by_kind = {
            Tell.ENTERED: snapshot.c.entered,
            Tell.EXITED: snapshot.c.exited,
            Tell.UPDATED: snapshot.c.updated,
        }
        query = (
            select(*(func.sum(by_kind[kind]) for kind in sorted(tell)))
            .join(audience)
            .where(audience.c.key == key, snapshot.c.state == "current", snapshot.c.seq > seq)
        )
        with self._database.read() as connection:
            return sum(int(count or 0) for count in connection.execute(query).one())

    def standing(self, destination_name: str, key: AudienceKey) -> Iterator[Standing]:
        """Who was rejected or skipped there, and not taken up again since; sorted."""
        pair = self._known_pair(destination_name, key)
        if pair is not None:
            yield from rejections.standing(self._database, pair)

    def told_of(self, destination_name: str, key: AudienceKey) -> list[Point]:
        """What the destination was told of the audience; oldest first."""
        pair = self._known_pair(destination_name, key)
        return [] if pair is None else self._points(pair)

    def _known_pair(self, destination_name: str, key: AudienceKey) -> Pair | None:
        of_audience = select(audience.c.id).where(audience.c.key == key)
        of_destination = select(destination.c.id).where(destination.c.name == destination_name)
        with self._database.read() as connection:
            ours, there = connection.scalar(of_audience), connection.scalar(of_destination)
        return None if ours is None or there is None else Pair(ours, there)

    def held(self) -> list[Span]:
        """First deliveries that wait for approval."""
        query = spans_with_names().where(span.c.state == SpanState.HELD).order_by(span.c.id)
        with self._database.read() as connection:
            return [span_of(row) for row in connection.execute(query)]


def spans_with_names() -> Select[Any]:
    return (
        select(
            span,
            audience.c.key,
            audience.c.kind.label("audience_kind"),
            destination.c.name,
            snapshot.c.captured_at,
            snapshot.c.plan_id,
            rejected_before(),
        )
        .join(audience, audience.c.id == span.c.audience_id)
        .join(destination, destination.c.id == span.c.destination_id)
        .join(
            snapshot,
            (snapshot.c.audience_id == span.c.audience_id)
            & (snapshot.c.seq == span.c.to_seq)
            & (snapshot.c.state == "current"),
        )
    )


def span_of(row: Row[Any]) -> Span:
    return Span(
        id=row.id,
        audience=AudienceKey(row.key),
        audience_kind=Kind(row.audience_kind),
        destination=row.name,
        number=row.number,
        lane=Lane(row.lane),
        kind=SpanKind(row.kind),
        state=SpanState(row.state),
        from_seq=Seq(row.from_seq),
        to_seq=Seq(row.to_seq),
        position=row.position,
        books=Books(
            total=row.total,
            accepted=row.accepted,
            rejected=row.rejected,
            skipped=row.skipped,
            rejected_before=row.rejected_before,
        ),
        captured_at=row.captured_at,
        plan_id=row.plan_id,
        tell=frozenset(Tell(kind) for kind in row.tell),
    )
