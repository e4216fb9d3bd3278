"""Deliveries that walk past a few users, as if they had never been there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, Row, func, select

from audience_sync.domain.span import Span
from audience_sync.store import chunks
from audience_sync.store.engine import Database
from audience_sync.store.gone import UNFINISHED
from audience_sync.store.schema import chunk, rejection, snapshot, span
from audience_sync.store.span_reads import SpanReads, span_of, spans_with_names
from audience_sync.store.traces import is_one_of


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanChange:
    """What a span becomes; most stay as they are."""

    id: int
    position: str | None
    total: int


def open_spans(connection: Connection, owners: Collection[int]) -> list[Span]:
    """Open and held spans of some audiences."""
    query = spans_with_names().where(span.c.audience_id.in_(owners), UNFINISHED).order_by(span.c.id)
    return [span_of(row) for row in connection.execute(query)]


def changed_spans(
    database: Database, owners: Collection[int], stopped: Collection[int], user_ids: Sequence[str]
) -> list[SpanChange]:
    """For every open span of ``owners``, and every span in ``stopped`` at one of the users.

    A change that is still to be told leaves the total; one that was handled stays in the books.
    """
    with database.read() as connection:
        walked = {s.id: s for s in open_spans(connection, owners)}
        query = select(span.c.id, span.c.audience_id, span.c.position, span.c.total)
        rows = connection.execute(query.where(span.c.id.in_([*walked, *stopped]))).all()
    found = []
    for row in rows:
        before = _Before(database, row.audience_id, user_ids)
        total = row.total
        if row.id in walked:
            total -= _untold(SpanReads(database), walked[row.id], user_ids, before)
        position = before.of(row.position) if row.position in user_ids else row.position
        found.append(SpanChange(id=row.id, position=position, total=total))
    return found


def _untold(spans: SpanReads, walked: Span, user_ids: Sequence[str], before: _Before) -> int:
    """How many of the users the walk has yet to tell."""
    if not walked.books.remaining:
        return 0
    position = walked.position
    ahead = [u for u in user_ids if position is None or u > position]
    return sum(_is_walked(spans, walked, user_id, before) for user_id in ahead)


def _is_walked(spans: SpanReads, walked: Span, user_id: str, before: _Before) -> bool:
    """The walk itself is asked, from just before the user on."""
    starts = [p for p in (walked.position, before.of(user_id)) if p is not None]
    start = replace(walked, position=max(starts, default=None))
    for change in spans.changes(start):
        if change.user_id >= user_id:
            return change.user_id == user_id
    return False


class _Before:
    """The nearest user who stays before one who goes, in all that is kept of an audience: its log,
    and the rejections that may be told again.

    A walk that goes on after either of them meets the same users.
    """

    def __init__(self, database: Database, owner: int, user_ids: Collection[str]) -> None:
        self._database = database
        self._owner = owner
        self._user_ids = list(user_ids)

    def of(self, user_id: str) -> str | None:
        nearest: dict[tuple[int, str], str | None] = {}
        for place in self._places(user_id):
            of_set = place.snapshot_id, place.part
            if nearest.get(of_set) is None:
                nearest[of_set] = self._last(place, user_id)
        found = [*nearest.values(), self._rejected(user_id)]
        return max((one for one in found if one is not None), default=None)

    def _rejected(self, user_id: str) -> str | None:
        query = select(func.max(rejection.c.user_id)).where(
            rejection.c.audience_id == self._owner,
            rejection.c.user_id < user_id,
            rejection.c.user_id.not_in(self._user_ids),
        )
        with self._database.read() as connection:
            found: str | None = connection.scalar(query)
        return found

    def _places(self, user_id: str) -> list[Row[Any]]:
        """Chunks that begin before the user, the last of each set first."""
        query = (
            select(chunk.c.snapshot_id, chunk.c.part, chunk.c.ordinal, chunk.c.last_user_id)
            .join(snapshot)
            .where(snapshot.c.audience_id == self._owner, chunk.c.first_user_id < user_id)
            .order_by(chunk.c.snapshot_id, chunk.c.part, chunk.c.ordinal.desc())
        )
        with self._database.read() as connection:
            return list(connection.execute(query))

    def _last(self, place: Row[Any], user_id: str) -> str | None:
        """The last user of a chunk who is before ``user_id`` and stays."""
        if place.last_user_id < user_id and place.last_user_id not in self._user_ids:
            return str(place.last_user_id)
        (batch,) = chunks.fetch(self._database, place.part, [(place.snapshot_id, place.ordinal)])
        ids = batch.filter(pc.invert(is_one_of(batch, self._user_ids))).column(0)
        last: str | None = pc.max(ids.filter(pc.less(ids, pa.scalar(user_id)))).as_py()
        return last
