"""Spans as they are stored. Reading needs no lease."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import Row, Select, func, select

from audience_sync.domain.audience import AudienceKey, Kind, Seq, Tell
from audience_sync.domain.change import Change
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Books, Span, SpanKind, SpanState
from audience_sync.pipeline.ports import Waiting
from audience_sync.store.net_changes import NetChanges
from audience_sync.store.schema import audience, destination, snapshot, span, told


class SpanReads(NetChanges):
    """The reading half of ``pipeline.ports.Spans``."""

    def unfinished(self, destination_name: str, lane: Lane | None = None) -> list[Span]:
        """Open and held spans of a destination, oldest first."""
        query = spans_with_names().where(
            destination.c.name == destination_name,
            span.c.state.in_([SpanState.OPEN, SpanState.HELD]),
        )
        if lane is not None:
            query = query.where(span.c.lane == lane)
        with self._database.read() as connection:
            return [span_of(row) for row in connection.execute(query.order_by(span.c.id))]

    def waiting(self, destination_name: str, keys: Collection[AudienceKey]) -> list[Waiting]:
        """Which of ``keys`` need a new span to ``destination_name``."""
        newest = (
            select(snapshot.c.audience_id, func.max(snapshot.c.seq).label("seq"))
            .where(snapshot.c.state == "current")
            .group_by(snapshot.c.audience_id)
            .subquery()
        )
        known = select(destination.c.id).where(destination.c.name == destination_name)
        unfinished = select(span.c.audience_id).where(
            span.c.destination_id.in_(known),
            span.c.state.in_([SpanState.OPEN, SpanState.HELD]),
        )
        query = (
            select(
                audience.c.key, audience.c.kind, told.c.told_seq, snapshot.c.seq, snapshot.c.members
            )
            .join(newest, newest.c.audience_id == audience.c.id)
            .join(
                snapshot,
                (snapshot.c.audience_id == audience.c.id)
                & (snapshot.c.seq == newest.c.seq)
                & (snapshot.c.state == "current"),
            )
            .outerjoin(
                told,
                (told.c.audience_id == audience.c.id) & (told.c.destination_id.in_(known)),
            )
            .where(audience.c.key.in_(keys), audience.c.id.not_in(unfinished))
            .where((told.c.told_seq.is_(None)) | (told.c.told_seq < snapshot.c.seq))
            .order_by(audience.c.key)
        )
        with self._database.read() as connection:
            return [
                Waiting(
                    audience=AudienceKey(row.key),
                    kind=Kind(row.kind),
                    told_seq=None if row.told_seq is None else Seq(row.told_seq),
                    to_seq=Seq(row.seq),
                    members=row.members,
                )
                for row in connection.execute(query)
            ]

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

    def changes(self, walked: Span) -> Iterator[Change]:
        position = walked.position
        net = self.net(walked.audience, walked.from_seq, walked.to_seq, after=position)
        for change in net:
            if position is None or change.user_id > position:
                yield change

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
            total=row.total, accepted=row.accepted, rejected=row.rejected, skipped=row.skipped
        ),
        captured_at=row.captured_at,
        plan_id=row.plan_id,
        tell=frozenset(Tell(kind) for kind in row.tell),
    )
