"""What happened to one audience: snapshots, runs that did not go well, orders, deliveries.

Rows of all of these stay when members are no longer kept. Each list is newest first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, or_, select

from audience_sync.domain.audience import AudienceKey, Seq, Tell
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Books, SpanKind, SpanState
from audience_sync.domain.told import Delivery, Refused
from audience_sync.store.engine import Database
from audience_sync.store.events import Moment, OrderGiven, RunInTrouble, Size, SnapshotMade
from audience_sync.store.schema import audience, destination, rejection, run, snapshot, span

GOOD = ("committed", "unchanged", "completed", "quota used", "running")
"""Outcomes of captures and deliveries that are no news."""
RUNS = ("capture", "delivery")
"""Every other kind of run is a person's order."""


class Histories:
    """``limit``: so many of each, or all with ``None``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def sizes(self, key: AudienceKey) -> list[Size]:
        """Oldest first."""
        query = _of(key, select(snapshot.c.seq, snapshot.c.captured_at, snapshot.c.members))
        return [
            Size(seq=Seq(row.seq), captured_at=row.captured_at, members=row.members)
            for row in self._rows(query.order_by(snapshot.c.seq))
        ]

    def moments(self, key: AudienceKey, seqs: Collection[Seq]) -> dict[Seq, Moment]:
        columns = snapshot.c.seq, snapshot.c.captured_at, snapshot.c.query_hash
        query = _of(key, select(*columns)).where(snapshot.c.seq.in_(seqs))
        return {
            Seq(row.seq): Moment(
                seq=Seq(row.seq), captured_at=row.captured_at, definition=row.query_hash
            )
            for row in self._rows(query)
        }

    def snapshots(
        self, key: AudienceKey, limit: int | None, kept: Collection[Seq]
    ) -> list[SnapshotMade]:
        # One more, to see whether the definition of the last was another one.
        more = None if limit is None else limit + 1
        query = _of(key, select(snapshot)).order_by(snapshot.c.seq.desc()).limit(more)
        rows = self._rows(query)
        shown = rows if limit is None else rows[:limit]
        approvals = self._approvals([row.id for row in shown])
        before = {row.id: older.query_hash for row, older in pairwise(rows)}
        return [_snapshot(row, before.get(row.id), kept, approvals) for row in shown]

    def orders(self, key: AudienceKey, limit: int | None) -> list[OrderGiven]:
        query = _runs(key).where(run.c.kind.not_in(RUNS))
        return [_order(row) for row in self._rows(query.limit(limit))]

    def trouble(self, key: AudienceKey, limit: int | None) -> list[RunInTrouble]:
        query = _runs(key).where(run.c.kind.in_(RUNS), run.c.outcome.not_in(GOOD))
        return [_run(row) for row in self._rows(query.limit(limit))]

    def deliveries(self, key: AudienceKey, limit: int | None) -> list[Delivery]:
        query = (
            select(span, destination.c.name)
            .select_from(span.join(audience).join(destination))
            .where(audience.c.key == key)
            .order_by(span.c.id.desc())
        )
        return [_delivery(row) for row in self._rows(query.limit(limit))]

    def refused(self, key: AudienceKey, user_id: str) -> list[Refused]:
        """Where the user was rejected or skipped, newest first."""
        owner = select(audience.c.id).where(audience.c.key == key).scalar_subquery()
        query = select(rejection).where(
            rejection.c.audience_id == owner, rejection.c.user_id == user_id
        )
        return [
            Refused(
                span_id=row.span_id,
                outcome=row.outcome,
                reason=row.reason,
                at=row.recorded_at,
                again_in=frozenset({row.retried_in, row.resolved_in} - {None}),
                retry=row.retry_at is not None,
            )
            for row in self._rows(query.order_by(rejection.c.id.desc()))
        ]

    def _approvals(self, snapshot_ids: Collection[int]) -> dict[int, OrderGiven]:
        approved = and_(run.c.kind == "approve", run.c.outcome == "approved")
        query = _with_names().where(approved, run.c.snapshot_id.in_(snapshot_ids))
        return {row.snapshot_id: _order(row) for row in self._rows(query)}

    def _rows(self, query: Select[Any]) -> list[Row[Any]]:
        with self._database.read() as connection:
            return list(connection.execute(query).all())


def _of(key: AudienceKey, query: Select[Any]) -> Select[Any]:
    return query.join(audience).where(audience.c.key == key, snapshot.c.state == "current")


def _with_names() -> Select[Any]:
    joined = run.outerjoin(destination, destination.c.id == run.c.destination_id)
    joined = joined.outerjoin(snapshot, snapshot.c.id == run.c.snapshot_id)
    return select(
        run, destination.c.name.label("place"), snapshot.c.plan_id, snapshot.c.held_for
    ).select_from(joined)


def _runs(key: AudienceKey) -> Select[Any]:
    """Runs of the audience, and those of no audience: of its destinations, or of everything."""
    return _with_names().where(_concerns(key)).order_by(run.c.id.desc())


def _concerns(key: AudienceKey) -> ColumnElement[bool]:
    owner = select(audience.c.id).where(audience.c.key == key).scalar_subquery()
    places = select(span.c.destination_id).where(span.c.audience_id == owner)
    everywhere = or_(run.c.destination_id.is_(None), run.c.destination_id.in_(places))
    return or_(run.c.audience_id == owner, and_(run.c.audience_id.is_(None), everywhere))


def _snapshot(
    row: Row[Any],
    definition_before: str | None,
    kept: Collection[Seq],
    approvals: Mapping[int, OrderGiven],
) -> SnapshotMade:
    changed = definition_before not in (None, row.query_hash)
    return SnapshotMade(
        seq=Seq(row.seq),
        captured_at=row.captured_at,
        members=row.members,
        entered=row.entered,
        exited=row.exited,
        updated=row.updated,
        rows_read=row.rows_read,
        refused=row.refused,
        duplicates=row.duplicates,
        plan=row.plan_id,
        definition=row.query_hash,
        definition_before=definition_before if changed else None,
        kept=Seq(row.seq) in kept,
        approval=approvals.get(row.id),
    )


def _order(row: Row[Any]) -> OrderGiven:
    return OrderGiven(
        at=row.started_at,
        kind=row.kind,
        outcome=row.outcome,
        actor=row.actor,
        reason=row.counts.get("reason"),
        destinations=(row.place,) if row.place else tuple(row.counts.get("destinations", ())),
        plan=row.plan_id or row.counts.get("plan"),
    )


def _run(row: Row[Any]) -> RunInTrouble:
    return RunInTrouble(
        kind=row.kind,
        destination=row.place,
        cycle_time=row.cycle_time,
        started_at=row.started_at,
        ended_at=row.ended_at,
        outcome=row.outcome,
        error=row.error,
        plan=row.plan_id,
        held_for=tuple(row.held_for or ()),
    )


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.id,
        destination=row.name,
        number=row.number,
        lane=Lane(row.lane),
        kind=SpanKind(row.kind),
        state=SpanState(row.state),
        held_for=row.held_for,
        tell=frozenset(Tell(kind) for kind in row.tell),
        from_seq=Seq(row.from_seq),
        to_seq=Seq(row.to_seq),
        position=row.position,
        books=Books(
            total=row.total, accepted=row.accepted, rejected=row.rejected, skipped=row.skipped
        ),
        opened_at=row.opened_at,
        ended_at=row.ended_at,
    )
