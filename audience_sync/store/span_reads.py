"""Spans as they are stored. Reading needs no lease."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Subquery,
    and_,
    exists,
    func,
    or_,
    select,
)

from audience_sync.domain.audience import AudienceKey, Kind, Seq, Tell
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Books, Span, SpanKind, SpanState
from audience_sync.pipeline.ports import Waiting
from audience_sync.store.pair import of_pair
from audience_sync.store.rejections import rejected_before
from audience_sync.store.resyncs import captured_since_request
from audience_sync.store.schema import (
    audience,
    destination,
    rejection,
    resync,
    snapshot,
    span,
    told,
)
from audience_sync.store.walks import Walks


class SpanReads(Walks):
    """The reading half of ``pipeline.ports.Spans``."""

    def unfinished(self, destination_name: str, lane: Lane | None = None) -> list[Span]:
        """Open and held spans of a destination, oldest first."""
        query = spans_with_names().where(destination.c.name == destination_name, unfinished())
        if lane is not None:
            query = query.where(span.c.lane == lane)
        with self._database.read() as connection:
            return [span_of(row) for row in connection.execute(query.order_by(span.c.id))]

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
        known = select(destination.c.id).where(destination.c.name == destination_name)
        has_open = select(span.c.audience_id).where(span.c.destination_id.in_(known), unfinished())
        newest = newest_snapshots()
        here = known.scalar_subquery()
        query = (
            select(
                audience.c.key,
                audience.c.kind,
                told.c.told_seq,
                newest.c.seq,
                newest.c.members,
                resync.c.audience_id.is_not(None).label("anew"),
            )
            .join(newest, newest.c.audience_id == audience.c.id)
            .outerjoin(told, of_pair(told, audience.c.id, here))
            .outerjoin(resync, of_pair(resync, audience.c.id, here))
            .where(audience.c.key.in_(keys), audience.c.id.not_in(has_open))
            .where(or_(resync.c.audience_id.is_(None), captured_since_request()))
            .where(
                or_(
                    told.c.told_seq.is_(None),
                    told.c.told_seq < newest.c.seq,
                    resync.c.audience_id.is_not(None),
                    _retry_asked(here),
                )
            )
            .order_by(audience.c.key)
        )
        with self._database.read() as connection:
            return [_waiting(row) for row in connection.execute(query)]

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

    def held(self) -> list[Span]:
        """First deliveries that wait for approval."""
        query = spans_with_names().where(span.c.state == SpanState.HELD).order_by(span.c.id)
        with self._database.read() as connection:
            return [span_of(row) for row in connection.execute(query)]


def unfinished() -> ColumnElement[bool]:
    return span.c.state.in_([SpanState.OPEN, SpanState.HELD])


def newest_snapshots() -> Subquery:
    """``audience_id``, ``seq`` and ``members`` of the newest snapshot of each audience."""
    top = (
        select(snapshot.c.audience_id, func.max(snapshot.c.seq).label("seq"))
        .where(snapshot.c.state == "current")
        .group_by(snapshot.c.audience_id)
        .subquery()
    )
    same = and_(snapshot.c.audience_id == top.c.audience_id, snapshot.c.seq == top.c.seq)
    query = select(snapshot.c.audience_id, snapshot.c.seq, snapshot.c.members)
    return query.join(top, same).where(snapshot.c.state == "current").subquery()


def _retry_asked(destination_id: Any) -> ColumnElement[bool]:
    return exists().where(
        of_pair(rejection, audience.c.id, destination_id),
        rejection.c.retry_at.is_not(None),
        rejection.c.retried_in.is_(None),
        rejection.c.resolved_in.is_(None),
    )


def _waiting(row: Row[Any]) -> Waiting:
    kind = SpanKind.INITIAL if row.told_seq is None else SpanKind.INCREMENTAL
    return Waiting(
        audience=AudienceKey(row.key),
        audience_kind=Kind(row.kind),
        kind=SpanKind.RESYNC if row.anew else kind,
        told_seq=None if row.told_seq is None else Seq(row.told_seq),
        to_seq=Seq(row.seq),
        members=row.members,
    )


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
