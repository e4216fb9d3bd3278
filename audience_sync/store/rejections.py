"""Members that a destination was not told, and which span takes them up again.

A rejection *stands* until the member is handled by a later span: ``retried_in`` names the span that
took it up when it was opened, ``resolved_in`` the one that was completed with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from audience_sync.domain.audience import AudienceKey
from audience_sync.domain.span import Refusal
from audience_sync.domain.walk import Standing
from audience_sync.store.engine import Database
from audience_sync.store.pair import Pair, of_pair
from audience_sync.store.schema import audience, destination, rejection, span

PAGE = 10_000
"""Rows that are read at a time."""

SOME = 500
"""Parameters of one statement."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """``outcome``: ``rejected`` or ``skipped``; ``again``: asked for, or under way."""

    audience: AudienceKey
    destination: str
    user_id: str
    outcome: str
    reason: str
    recorded_at: datetime
    again: bool


def keep(
    connection: Connection,
    pair: Pair,
    span_id: int,
    outcome: str,
    refusals: Sequence[Refusal],
    now: datetime,
) -> None:
    """Keep refusals of a span; those who were refused before stand once, with the new reason."""
    if not refusals:
        return
    before = update(rejection).where(
        of_pair(rejection, *pair),
        rejection.c.user_id == bindparam("user"),
        rejection.c.resolved_in.is_(None),
    )
    users = [{"user": refusal.user_id} for refusal in refusals]
    connection.execute(before.values(resolved_in=span_id), users)
    always = {"span_id": span_id, "outcome": outcome, "recorded_at": now, **pair._asdict()}
    rows = [always | {"user_id": r.user_id, "reason": r.reason} for r in refusals]
    connection.execute(insert(rejection), rows)


def standing(database: Database, pair: Pair) -> Iterator[Standing]:
    """Those that no span has taken up, sorted by ``user_id``; nothing is held open."""
    query = (
        select(rejection.c.user_id, func.max(rejection.c.retry_at).label("retry_at"))
        .where(of_pair(rejection, *pair), _stands())
        .group_by(rejection.c.user_id)
        .order_by(rejection.c.user_id)
        .limit(PAGE)
    )
    for row in _pages(database, query, None):
        yield Standing(user_id=row.user_id, retry=row.retry_at is not None)


def taken_up(database: Database, span_id: int, after: str | None) -> Iterator[str]:
    """Who is told again by an open span, beyond ``after``; sorted."""
    query = (
        select(rejection.c.user_id)
        .where(_taken_up_by(span_id))
        .group_by(rejection.c.user_id)
        .order_by(rejection.c.user_id)
        .limit(PAGE)
    )
    for row in _pages(database, query, after):
        yield row.user_id


def take_up(
    connection: Connection, pair: Pair, span_id: int, user_ids: Iterable[str] | None
) -> None:
    """``None``: all who stand."""
    these = update(rejection).where(of_pair(rejection, *pair), _stands())
    taken = these.values(retried_in=span_id)
    if user_ids is None:
        connection.execute(taken)
        return
    ids = iter(user_ids)
    while some := list(islice(ids, SOME)):
        connection.execute(taken.where(rejection.c.user_id.in_(some)))


def resolve(connection: Connection, span_id: int) -> None:
    """All that the span took up were handled."""
    here = _taken_up_by(span_id), rejection.c.resolved_in.is_(None)
    connection.execute(update(rejection).where(*here).values(resolved_in=span_id))


def put_back(connection: Connection, span_id: int) -> None:
    """The span was abandoned: what it took up stands again."""
    here = _taken_up_by(span_id), rejection.c.resolved_in.is_(None)
    connection.execute(update(rejection).where(*here).values(retried_in=None))


def forget_resolved(connection: Connection, owner: int, keep_since: datetime) -> None:
    """Remove those of an audience that were handled long ago."""
    connection.execute(
        delete(rejection).where(
            rejection.c.audience_id == owner,
            rejection.c.resolved_in.is_not(None),
            rejection.c.recorded_at < keep_since,
        )
    )


class Rejections:
    """For people: what stands, and the order to tell it again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unresolved(
        self, keys: Collection[AudienceKey], destinations: Collection[str]
    ) -> Iterator[Rejection]:
        """By audience, destination and ``user_id``, page by page."""
        query = (
            select(rejection, audience.c.key, destination.c.name)
            .join(audience, audience.c.id == rejection.c.audience_id)
            .join(destination, destination.c.id == rejection.c.destination_id)
            .where(rejection.c.resolved_in.is_(None))
            .where(audience.c.key.in_(keys), destination.c.name.in_(destinations))
        )
        at = 0
        while True:
            page = query.where(rejection.c.id > at).order_by(rejection.c.id).limit(PAGE)
            with self._database.read() as connection:
                rows = connection.execute(page).all()
            if not rows:
                return
            yield from map(_rejection, rows)
            at = rows[-1].id

    def retry(
        self,
        connection: Connection,
        keys: Collection[AudienceKey],
        destinations: Collection[str],
        now: datetime,
    ) -> int:
        """Have them told again by the next span; how many."""
        audiences = select(audience.c.id).where(audience.c.key.in_(keys))
        places = select(destination.c.id).where(destination.c.name.in_(destinations))
        marked = connection.execute(
            update(rejection)
            .where(_stands())
            .where(rejection.c.audience_id.in_(audiences), rejection.c.destination_id.in_(places))
            .values(retry_at=now)
        )
        return marked.rowcount


def rejected_before() -> ColumnElement[int]:
    """Of the row of ``span`` around it: how many it took up that were rejected, not skipped."""
    query = select(func.count(rejection.c.user_id.distinct())).where(
        of_pair(rejection, span.c.audience_id, span.c.destination_id),
        rejection.c.retried_in == span.c.id,
        rejection.c.outcome == "rejected",
    )
    return query.correlate(span).scalar_subquery().label("rejected_before")


def _taken_up_by(span_id: int) -> ColumnElement[bool]:
    """Found by the index of its pair."""
    owner, place = (
        select(column).where(span.c.id == span_id).scalar_subquery()
        for column in (span.c.audience_id, span.c.destination_id)
    )
    return and_(of_pair(rejection, owner, place), rejection.c.retried_in == span_id)


def _stands() -> ColumnElement[bool]:
    return and_(rejection.c.retried_in.is_(None), rejection.c.resolved_in.is_(None))


def _pages(database: Database, query: Any, after: str | None) -> Iterator[Row[Any]]:
    while True:
        page = query if after is None else query.where(rejection.c.user_id > after)
        with database.read() as connection:
            rows = connection.execute(page).all()
        yield from rows
        if len(rows) < PAGE:
            return
        after = rows[-1].user_id


def _rejection(row: Row[Any]) -> Rejection:
    return Rejection(
        audience=AudienceKey(row.key),
        destination=row.name,
        user_id=row.user_id,
        outcome=row.outcome,
        reason=row.reason,
        recorded_at=row.recorded_at,
        again=row.retry_at is not None or row.retried_in is not None,
    )
