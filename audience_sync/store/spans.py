"""Spans opened, advanced, completed (P2, P3). No row is written per member told.

Everything but an operator's ``approve`` is written under the lease of the destination's lane.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, func, insert, select, update

from audience_sync.domain.audience import Seq, Tell
from audience_sync.domain.change import is_told
from audience_sync.domain.guard import Limits, holds_initial
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Books, Refusal, Span, SpanKind, SpanState, Tally
from audience_sync.errors import LeaseLost, UsageError
from audience_sync.pipeline.ports import Lease, Waiting
from audience_sync.store.engine import Database
from audience_sync.store.forgotten import count
from audience_sync.store.ids import destination_id, known_audience_id
from audience_sync.store.schema import destination, rejection, run, snapshot, span, told
from audience_sync.store.span_reads import SpanReads, span_of, spans_with_names


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

        ``None``: a capture came between, and what was counted may be pruned by now, or somebody
        was forgotten. Both lock the audience's row too. The next run opens it.

        Raises:
            LeaseLost: the destination was moved by a newer configuration.
        """
        first = waiting.told_seq is None
        from_seq = Seq(0) if waiting.told_seq is None else waiting.told_seq
        lane = Lane.INITIAL if first else Lane.INCREMENTAL
        forgotten = self._forgotten()
        total = self._total(waiting, tell)
        with self._database.write(lease) as connection:
            owner = known_audience_id(connection, waiting.audience, lock=True)
            receiver = self._here(connection, destination_name)
            newest = _newest(connection, owner)
            if newest != (waiting.to_seq, waiting.members) or count(connection) != forgotten:
                return None
            nobody_yet = first or _nobody_at(connection, owner, from_seq)
            held_for = holds_initial(total, limits) if nobody_yet else None
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
                    tell=sorted(tell),
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
            query = spans_with_names().where(span.c.id == made.inserted_primary_key[0])
            return span_of(connection.execute(query).one())

    def _here(self, connection: Connection, name: str) -> int:
        """Raises LeaseLost when another process, with a newer configuration, moved ``name``."""
        place = self._places.get(name)
        found = connection.scalar(select(destination.c.place).where(destination.c.name == name))
        if place is not None and found != place:
            raise LeaseLost(f"{name} is at another place now: the configuration was edited")
        return destination_id(connection, name)

    def _forgotten(self) -> int:
        with self._database.read() as connection:
            return count(connection)

    def _total(self, waiting: Waiting, tell: Collection[Tell]) -> int:
        if waiting.told_seq is None:
            return waiting.members if Tell.ENTERED in tell else 0
        changes = self.net(waiting.audience, waiting.told_seq, waiting.to_seq)
        return sum(1 for change in changes if is_told(change, tell, waiting.kind))

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

    def approve(self, held: Span, *, reason: str | None, actor: str) -> None:
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
                    actor=actor,
                )
            )


def _newest(connection: Connection, owner: int) -> tuple[int, int] | None:
    """``seq`` and members of the newest snapshot."""
    current = snapshot.c.audience_id == owner, snapshot.c.state == "current"
    query = select(snapshot.c.seq, snapshot.c.members).where(*current)
    found = connection.execute(query.order_by(snapshot.c.seq.desc()).limit(1)).one_or_none()
    return None if found is None else (found.seq, found.members)


def _nobody_at(connection: Connection, owner: int, seq: Seq) -> bool:
    members = select(snapshot.c.members).where(
        snapshot.c.audience_id == owner, snapshot.c.state == "current", snapshot.c.seq == seq
    )
    return not connection.scalar(members)


def _set_told(connection: Connection, walked: Span) -> None:
    """By the span's own row: its destination may have another name by now."""
    row = connection.execute(select(span).where(span.c.id == walked.id)).one()
    here = told.c.audience_id == row.audience_id, told.c.destination_id == row.destination_id
    moved = connection.execute(update(told).where(*here).values(told_seq=walked.to_seq))
    if not moved.rowcount:
        connection.execute(
            insert(told).values(
                audience_id=row.audience_id,
                destination_id=row.destination_id,
                told_seq=walked.to_seq,
            )
        )


def _book_values(books: Books) -> dict[str, int]:
    return {
        "accepted": books.accepted,
        "rejected": books.rejected,
        "skipped": books.skipped,
    }
