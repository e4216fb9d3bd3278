"""Spans opened, advanced, completed (P2, P3). No row is written per member told.

Everything but an operator's ``approve`` is written under the lease of the destination's lane.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from audience_sync.domain.audience import LEAVING, AudienceKey, Tell
from audience_sync.domain.guard import Limits, holds_initial
from audience_sync.domain.span import Books, Span, SpanKind, SpanState, Tally
from audience_sync.errors import LeaseLost, SpanEnded, UsageError
from audience_sync.pipeline.ports.delivering import Waiting
from audience_sync.pipeline.ports.leases import Lease
from audience_sync.store import contacts, rejections
from audience_sync.store.engine import Database
from audience_sync.store.forgotten import count
from audience_sync.store.gone import abandon
from audience_sync.store.ids import destination_id, known_audience_id
from audience_sync.store.pair import Pair, of_pair
from audience_sync.store.schema import audience, destination, resync, run, snapshot, span
from audience_sync.store.span_reads import (
    SpanReads,
    span_of,
    spans_with_names,
)
from audience_sync.store.survey import Survey
from audience_sync.store.waiting import waiting_in
from audience_sync.store.walks import set_told, told_points


class Spans(SpanReads):
    """See ``pipeline.ports.Spans``."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        places: Mapping[str, str] | None = None,
    ) -> None:
        """``places``: by destination, where it is in the configuration of this process."""
        super().__init__(database)
        self._clock = clock
        self._places = places or {}

    def open(
        self,
        waiting: Waiting,
        destination_name: str,
        *,
        tell: Collection[Tell],
        limits: Limits,
        lease: Lease,
    ) -> Span | None:
        """Open a span pinned to the newest snapshot; one to a large audience that was empty to
        the destination so far is held.

        ``None``: what ``waiting`` says is no longer so. A capture came between, and what was
        counted may be pruned by now; somebody was forgotten, the other lane was quicker, or a
        person has paused or retired it. Who does so locks the audience's row too. If there is
        anything left to tell then, the next run opens it.

        Raises:
            LeaseLost: the destination was moved by a newer configuration.
        """
        pair = self._pair_of(waiting.audience, destination_name)
        forgotten = self._forgotten()
        with (
            closing(self.surveyed(waiting, pair, tell)) as survey,
            self._database.write(lease) as connection,
        ):
            known_audience_id(connection, waiting.audience, lock=True)
            self._check_place(connection, destination_name)
            if (
                waiting not in waiting_in(connection, destination_name, [waiting.audience])
                or not _may_be_told(connection, pair, tell)
                or count(connection) != forgotten
            ):
                return None
            nobody_yet = _nobody_told(connection, pair)
            held_for = holds_initial(survey.total, limits) if nobody_yet else None
            row = _row(waiting, pair, survey.total, held_for)
            row |= {"tell": sorted(tell), "opened_at": self._clock()}
            row |= {"number": _last_number(connection, pair) + 1}
            made = connection.execute(insert(span).values(row)).inserted_primary_key
            assert made is not None
            _take_up(connection, waiting, pair, int(made[0]), survey)
            query = spans_with_names().where(span.c.id == made[0])
            return span_of(connection.execute(query).one())

    def _pair_of(self, key: AudienceKey, name: str) -> Pair:
        """Makes the destination's row at its first span."""
        with self._database.write() as connection:
            return Pair(known_audience_id(connection, key), destination_id(connection, name))

    def _check_place(self, connection: Connection, name: str) -> None:
        """Raises LeaseLost when another process, with a newer configuration, moved ``name``."""
        place = self._places.get(name)
        found = connection.scalar(select(destination.c.place).where(destination.c.name == name))
        if place is not None and found != place:
            raise LeaseLost(f"{name} is at another place now: the configuration was edited")

    def _forgotten(self) -> int:
        with self._database.read() as connection:
            return count(connection)

    def advance(self, walked: Span, books: Books, tally: Tally, lease: Lease) -> Span:
        with self._database.write(lease) as connection:
            moved = connection.execute(
                update(span)
                .where(span.c.id == walked.id, span.c.state == SpanState.OPEN)
                .values(position=tally.last_user_id, **_book_values(books))
            )
            if not moved.rowcount:
                raise SpanEnded(f"the span of {walked.audience} is no longer open")
            if tally.rejected or tally.skipped or tally.contacts:
                self._keep(connection, walked, tally)
        return replace(walked, position=tally.last_user_id, books=books)

    def _keep(self, connection: Connection, walked: Span, tally: Tally) -> None:
        """What a batch taught: who cannot be told, and who is who at the destination."""
        pair, now = _pair_of_span(connection, walked), self._clock()
        for outcome, refusals in (("rejected", tally.rejected), ("skipped", tally.skipped)):
            rejections.keep(connection, pair, walked.id, outcome, refusals, now)
        contacts.put(connection, pair.destination_id, tally.contacts)
        met = {one.user_id for one in tally.contacts} | {one.user_id for one in tally.skipped}
        contacts.take_up_skipped(connection, pair.destination_id, met, now)

    def complete(self, walked: Span, lease: Lease) -> None:
        with self._database.write(lease) as connection:
            done = connection.execute(
                update(span)
                .where(span.c.id == walked.id, span.c.state == SpanState.OPEN)
                .values(state=SpanState.COMPLETED, ended_at=self._clock())
            )
            if not done.rowcount:
                raise SpanEnded(f"the span of {walked.audience} is no longer open")
            set_told(connection, _pair_of_span(connection, walked), walked.to_seq)
            rejections.resolve(connection, walked.id)
            connection.execute(delete(resync).where(resync.c.span_id == walked.id))

    def abandon(self, walked: Span, lease: Lease) -> None:
        with self._database.write(lease) as connection:
            abandon(connection, walked.id, self._clock())

    def approve(self, held: Span, *, reason: str | None, actor: str) -> None:
        """An operator's yes to a held first delivery, kept in the history.

        Raises:
            UsageError: it is no longer held.
        """
        with self._database.write() as connection:
            opened = connection.execute(
                update(span)
                .where(span.c.id == held.id, span.c.state == SpanState.HELD)
                .values(state=SpanState.OPEN, held_for=None)
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
                    actor=actor,
                )
            )


def _row(waiting: Waiting, pair: Pair, total: int, held_for: str | None) -> dict[str, Any]:
    whole = waiting.kind is not SpanKind.INCREMENTAL
    return {
        **pair._asdict(),
        "lane": waiting.lane,
        "kind": waiting.kind,
        "state": SpanState.HELD if held_for else SpanState.OPEN,
        "held_for": held_for,
        "from_seq": 0 if whole else waiting.told_seq,
        "to_seq": waiting.to_seq,
        "total": total,
        "accepted": 0,
        "rejected": 0,
        "skipped": 0,
    }


def _take_up(
    connection: Connection, waiting: Waiting, pair: Pair, span_id: int, survey: Survey
) -> None:
    """What the span was opened for is done when it is completed."""
    rejections.take_up(connection, pair, span_id, survey.again)
    if waiting.kind is SpanKind.RESYNC:
        here = of_pair(resync, pair.audience_id, pair.destination_id)
        connection.execute(update(resync).where(here).values(span_id=span_id))


def _last_number(connection: Connection, pair: Pair) -> int:
    last = select(func.max(span.c.number)).where(of_pair(span, *pair))
    return connection.scalar(last) or 0


def _may_be_told(connection: Connection, pair: Pair, tell: Collection[Tell]) -> bool:
    """Whether people still want it told so; who decided to tell it may have looked before."""
    ordered = (
        select(audience.c.paused_at, audience.c.retired_at, destination.c.stopped_at)
        .join(destination, destination.c.id == pair.destination_id)
        .where(audience.c.id == pair.audience_id)
    )
    found = connection.execute(ordered).one()
    if found.paused_at is not None or found.stopped_at is not None:
        return False
    return found.retired_at is None or frozenset(tell) == LEAVING


def _nobody_told(connection: Connection, pair: Pair) -> bool:
    """Whether the destination takes nobody for a member so far."""
    members = select(snapshot.c.members).where(
        snapshot.c.audience_id == pair.audience_id,
        snapshot.c.state == "current",
        snapshot.c.seq.in_(select(told_points(pair).subquery().c.seq)),
    )
    return not any(connection.scalars(members))


def _pair_of_span(connection: Connection, walked: Span) -> Pair:
    """By the span's own row: its destination may have another name by now."""
    query = select(span.c.audience_id, span.c.destination_id).where(span.c.id == walked.id)
    return Pair(*connection.execute(query).one())


def _book_values(books: Books) -> dict[str, int]:
    return {
        "accepted": books.accepted,
        "rejected": books.rejected,
        "skipped": books.skipped,
    }
