"""Spans: opened, walked, advanced, completed (P2, P3). No row is written per member told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select, update

from audience_sync.domain.audience import AudienceKey, Seq, Tell
from audience_sync.domain.change import Change, compose_sets, is_told
from audience_sync.domain.guard import Limits, holds_initial
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Books, Refusal, Span, SpanKind, SpanState, Tally
from audience_sync.errors import LeaseLost, StoreFailed, UsageError
from audience_sync.pipeline.ports import Lease, Waiting
from audience_sync.store import chunks
from audience_sync.store.chunk_rows import changed, entered
from audience_sync.store.engine import Database
from audience_sync.store.ids import destination_id, known_audience_id
from audience_sync.store.schema import (
    audience,
    destination,
    rejection,
    run,
    snapshot,
    span,
    told,
)


class Spans:
    """See ``pipeline.ports.Spans``."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    # Reading

    def unfinished(self, destination_name: str, lane: Lane | None = None) -> list[Span]:
        """Open and held spans of a destination, oldest first."""
        query = _spans().where(
            destination.c.name == destination_name,
            span.c.state.in_([SpanState.OPEN, SpanState.HELD]),
        )
        if lane is not None:
            query = query.where(span.c.lane == lane)
        with self._database.read() as connection:
            return [_span(row) for row in connection.execute(query.order_by(span.c.id))]

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
            select(audience.c.key, told.c.told_seq, snapshot.c.seq, snapshot.c.members)
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

    def changes_after(self, key: AudienceKey, seq: Seq) -> int:
        """At most so many members entered or exited since snapshot ``seq``."""
        query = (
            select(func.sum(snapshot.c.entered + snapshot.c.exited))
            .join(audience)
            .where(audience.c.key == key, snapshot.c.state == "current", snapshot.c.seq > seq)
        )
        with self._database.read() as connection:
            return int(connection.scalar(query) or 0)

    def changes(self, walked: Span) -> Iterator[Change]:
        position = walked.position
        net = self.net(walked.audience, walked.from_seq, walked.to_seq, after=position)
        for change in net:
            if position is None or change.user_id > position:
                yield change

    def net(
        self, key: AudienceKey, from_seq: Seq, to_seq: Seq, *, after: str | None = None
    ) -> Iterator[Change]:
        """The net changes between two kept snapshots, sorted; from 0: all members as entered.

        Args:
            after: whole chunks up to this ``user_id`` may be left out.
        """
        with self._database.read() as connection:
            rows = connection.execute(_current(key).order_by(snapshot.c.seq)).all()
        if from_seq:
            return compose_sets(
                self._set(row, chunks.CHANGES, after)
                for row in rows
                if from_seq < row.seq <= to_seq
            )
        base = _nearest_base(rows, to_seq)
        sets = [self._set(base, chunks.BASE, after)]
        sets += [
            self._set(row, chunks.CHANGES, after) for row in rows if base.seq < row.seq <= to_seq
        ]
        backwards = [row for row in reversed(rows) if to_seq < row.seq <= base.seq]
        sets += [_inverse(self._set(row, chunks.CHANGES, after)) for row in backwards]
        return compose_sets(sets)

    def _set(self, row: Row[Any], part: str, after: str | None) -> Iterator[Change]:
        to_changes = entered if part == chunks.BASE else changed
        count = row.members if part == chunks.BASE else row.entered + row.exited + row.updated
        for batch in chunks.read(self._database, row.id, part, rows=count, after=after):
            yield from to_changes(batch)

    # Writing, under the lease of the destination's lane

    def open(
        self,
        waiting: Waiting,
        destination_name: str,
        *,
        tell: Collection[Tell],
        limits: Limits,
        lease: Lease,
    ) -> Span:
        """Open a span pinned to the newest snapshot; an initial one that is too large is held."""
        first = waiting.told_seq is None
        from_seq = Seq(0) if waiting.told_seq is None else waiting.told_seq
        lane = Lane.INITIAL if first else Lane.INCREMENTAL
        total = self._total(waiting, tell)
        held_for = holds_initial(total, limits) if first else None
        with self._database.write(lease) as connection:
            owner = known_audience_id(connection, waiting.audience)
            receiver = destination_id(connection, destination_name)
            last = select(func.max(span.c.number)).where(
                span.c.audience_id == owner, span.c.destination_id == receiver
            )
            made = connection.execute(
                insert(span).values(
                    audience_id=owner,
                    destination_id=receiver,
                    number=(connection.scalar(last) or 0) + 1,
                    lane=lane,
                    kind=SpanKind.INITIAL if first else SpanKind.INCREMENTAL,
                    state=SpanState.HELD if held_for else SpanState.OPEN,
                    held_for=held_for,
                    from_seq=from_seq,
                    to_seq=waiting.to_seq,
                    total=total,
                    accepted=0,
                    rejected=0,
                    skipped=0,
                    opened_at=self._clock(),
                )
            )
            assert made.inserted_primary_key is not None
            query = _spans().where(span.c.id == made.inserted_primary_key[0])
            return _span(connection.execute(query).one())

    def _total(self, waiting: Waiting, tell: Collection[Tell]) -> int:
        if waiting.told_seq is None:
            return waiting.members if Tell.ENTERED in tell else 0
        changes = self.net(waiting.audience, waiting.told_seq, waiting.to_seq)
        return sum(1 for change in changes if is_told(change, tell))

    def advance(self, walked: Span, books: Books, tally: Tally, lease: Lease) -> Span:
        with self._database.write(lease) as connection:
            moved = connection.execute(
                update(span)
                .where(span.c.id == walked.id, span.c.state == SpanState.OPEN)
                .values(position=tally.last_user_id, **_book_values(books))
            )
            if not moved.rowcount:
                raise LeaseLost(f"the span of {walked.audience} is no longer open")
            for outcome, refusals in (("rejected", tally.rejected), ("skipped", tally.skipped)):
                self._keep(connection, walked, outcome, refusals)
        return replace(walked, position=tally.last_user_id, books=books)

    def _keep(
        self, connection: Connection, walked: Span, outcome: str, refusals: Sequence[Refusal]
    ) -> None:
        always = {"span_id": walked.id, "outcome": outcome, "recorded_at": self._clock()}
        rows = [always | {"user_id": r.user_id, "reason": r.reason} for r in refusals]
        if rows:
            connection.execute(insert(rejection), rows)

    def complete(self, walked: Span, lease: Lease) -> None:
        with self._database.write(lease) as connection:
            done = connection.execute(
                update(span)
                .where(span.c.id == walked.id, span.c.state == SpanState.OPEN)
                .values(state=SpanState.COMPLETED, ended_at=self._clock())
            )
            if not done.rowcount:
                raise LeaseLost(f"the span of {walked.audience} is no longer open")
            _set_told(connection, walked)

    def held(self) -> list[Span]:
        """First deliveries that wait for approval."""
        query = _spans().where(span.c.state == SpanState.HELD).order_by(span.c.id)
        with self._database.read() as connection:
            return [_span(row) for row in connection.execute(query)]

    def approve(self, held: Span, *, reason: str | None) -> None:
        """An operator's yes to a held first delivery, kept in the history.

        Raises:
            UsageError: it is no longer held.
        """
        with self._database.write() as connection:
            opened = connection.execute(
                update(span)
                .where(span.c.id == held.id, span.c.state == SpanState.HELD)
                .values(state=SpanState.OPEN)
            )
            if not opened.rowcount:
                raise UsageError(f"the first delivery of {held.audience} is no longer held")
            now = self._clock()
            connection.execute(
                insert(run).values(
                    kind="approve",
                    audience_id=known_audience_id(connection, held.audience),
                    destination_id=destination_id(connection, held.destination),
                    lane=held.lane,
                    started_at=now,
                    ended_at=now,
                    outcome="approved",
                    counts={"reason": reason},
                )
            )


def _set_told(connection: Connection, walked: Span) -> None:
    owner = known_audience_id(connection, walked.audience)
    receiver = destination_id(connection, walked.destination)
    here = told.c.audience_id == owner, told.c.destination_id == receiver
    moved = connection.execute(update(told).where(*here).values(told_seq=walked.to_seq))
    if not moved.rowcount:
        connection.execute(
            insert(told).values(audience_id=owner, destination_id=receiver, told_seq=walked.to_seq)
        )


def _current(key: AudienceKey) -> Select[Any]:
    counts = snapshot.c.members, snapshot.c.entered, snapshot.c.exited, snapshot.c.updated
    query = select(snapshot.c.id, snapshot.c.seq, snapshot.c.has_base, *counts)
    return query.join(audience).where(audience.c.key == key, snapshot.c.state == "current")


def _nearest_base(rows: Sequence[Row[Any]], to_seq: Seq) -> Row[Any]:
    """The newest base at or before ``to_seq``, else the oldest after it."""
    bases = [row for row in rows if row.has_base]
    before = [row for row in bases if row.seq <= to_seq]
    if not bases:
        raise StoreFailed("no base of the audience is kept", hint="restore the store from a backup")
    return before[-1] if before else bases[0]


def _inverse(changes: Iterator[Change]) -> Iterator[Change]:
    return (change.inverse() for change in changes)


def _spans() -> Select[Any]:
    return (
        select(
            span,
            audience.c.key,
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


def _span(row: Row[Any]) -> Span:
    return Span(
        id=row.id,
        audience=AudienceKey(row.key),
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
    )


def _book_values(books: Books) -> dict[str, int]:
    return {
        "accepted": books.accepted,
        "rejected": books.rejected,
        "skipped": books.skipped,
    }
