"""What a span walks: the changes it tells, read from the log, and those who are told again."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing
from functools import partial
from itertools import islice
from typing import NamedTuple

from sqlalchemy import Connection, func, insert, null, select, update

from audience_sync.domain.audience import AudienceKey, Row, Seq, Tell
from audience_sync.domain.change import Change, is_told
from audience_sync.domain.span import Span, SpanKind, SpanState
from audience_sync.domain.walk import (
    Standing,
    Told,
    as_state,
    as_told,
    first_of_each,
    is_told_anew,
    survey,
    walk,
)
from audience_sync.pipeline.ports.delivering import Waiting
from audience_sync.store import chunks, rejections
from audience_sync.store.lookups import Lookups
from audience_sync.store.net_changes import NetChanges, current_log, nearest_base
from audience_sync.store.pair import Pair, of_pair
from audience_sync.store.rejections import PAGE
from audience_sync.store.schema import chunk, snapshot, span, told
from audience_sync.store.survey import Aside, Survey


class Point(NamedTuple):
    """A destination was told of the snapshot ``seq``, up to a ``user_id``; ``None``: everybody."""

    seq: Seq
    up_to: str | None


class Walks(NetChanges):
    """The walk of a span, and the count of it before it is opened."""

    def changes(self, walked: Span) -> Iterator[Change]:
        """See ``pipeline.ports.Spans``."""
        position = walked.position
        net = self._net(walked)
        again = self._again(walked)
        for change in walk(net, again, _tells(walked)):
            if position is None or change.user_id > position:
                yield change

    def milestones(self, walked: Span, most: int) -> list[str]:
        """See ``pipeline.ports.Spans``: where stored chunks of it begin."""
        from_seq, to_seq, first = walked.from_seq, walked.to_seq, chunk.c.first_user_id
        with self._database.read() as connection:
            log = connection.execute(current_log(walked.audience).order_by(snapshot.c.seq)).all()
            of = [row for row in log if from_seq < row.seq <= to_seq]
            part = chunks.CHANGES if from_seq else chunks.BASE
            read = [row.id for row in (of if from_seq else [nearest_base(log, to_seq)])]
            query = select(first).where(chunk.c.snapshot_id.in_(read), chunk.c.part == part)
            beyond = query.where(first > (walked.position or "")).order_by(first)
            found = list(connection.scalars(beyond))
        return found[:: -(-len(found) // most)] if found else []

    def surveyed(self, waiting: Waiting, pair: Pair, tell: Collection[Tell]) -> Survey:
        """What the span that is opened for ``waiting`` will walk. To be closed."""
        stand = rejections.standing(self._database, pair)
        told = partial(is_told, tell=tell, kind=waiting.audience_kind)
        if waiting.kind is SpanKind.INCREMENTAL:
            assert waiting.told_seq is not None
            net = self.net(waiting.audience, waiting.told_seq, waiting.to_seq)
            with ExitStack() as unless_done:
                again = unless_done.enter_context(closing(Aside()))
                total = survey(net, stand, told, again.add)
                unless_done.pop_all()
            return Survey(total=total, again=again)
        return self._whole(waiting, pair, stand, Tell.ENTERED in tell, told)

    def _whole(
        self,
        waiting: Waiting,
        pair: Pair,
        stand: Iterator[Standing],
        members_told: bool,
        told: partial[bool],
    ) -> Survey:
        """Members are counted already; only those who have left are looked at.

        All who stand are told again. There may be millions: a page of them is in memory.
        """
        key, to_seq = waiting.audience, waiting.to_seq
        members_who_stand = 0

        def left() -> Iterator[Standing]:
            nonlocal members_who_stand
            while page := [one.user_id for one in islice(stand, PAGE)]:
                rows = self._rows(key, to_seq, page)
                members_who_stand += len(rows)
                yield from (Standing(user_id=u, retry=True) for u in page if u not in rows)

        is_first = waiting.kind is SpanKind.INITIAL
        exits = iter(()) if is_first else self._exits(key, pair, to_seq)
        gone = survey(exits, left(), told)
        members = waiting.members if members_told else members_who_stand
        return Survey(total=members + gone, again=None)

    def _net(self, walked: Span) -> Iterator[Change]:
        key, to_seq, after = walked.audience, walked.to_seq, walked.position
        net = self.net(key, walked.from_seq, to_seq, after=after)
        if walked.kind is not SpanKind.RESYNC:
            return net
        points = self._points(self._pair(walked))
        return as_told(net, [(p.up_to, self.net(key, p.seq, to_seq, after=after)) for p in points])

    def _exits(self, key: AudienceKey, pair: Pair, to_seq: Seq) -> Iterator[Change]:
        """Those whom the destination may take for members, and who are none at ``to_seq``."""
        since = (self.net(key, p.seq, to_seq) for p in self._points(pair))
        return first_of_each([_exits_of(changes) for changes in since])

    def _points(self, pair: Pair) -> list[Point]:
        """What it was told: the last whole snapshot, then parts of later ones, oldest first."""
        with self._database.read() as connection:
            found = [Point(Seq(seq), up_to) for seq, up_to in connection.execute(told_points(pair))]
        return sorted(found, key=lambda point: point.seq)

    def _again(self, walked: Span) -> Iterator[Change]:
        """The states of those who are told again; a page of them is in memory at a time."""
        ids = rejections.taken_up(self._database, walked.id, walked.position)
        while page := list(islice(ids, PAGE)):
            rows = self._rows(walked.audience, walked.to_seq, page)
            for user_id in page:
                yield as_state(user_id, rows.get(user_id))

    def _rows(self, key: AudienceKey, seq: Seq, user_ids: Collection[str]) -> dict[str, Row]:
        """The rows of those who are members."""
        if not user_ids:
            return {}
        found = Lookups(self._database).state_at(key, seq, user_ids)
        return {user_id: row for user_id, row in found.items() if row is not None}

    def _pair(self, walked: Span) -> Pair:
        """By the span's own row: its destination may have another name by now."""
        query = select(span.c.audience_id, span.c.destination_id).where(span.c.id == walked.id)
        with self._database.read() as connection:
            return Pair(*connection.execute(query).one())


def _tells(walked: Span) -> Told:
    """Whether a change is told; a resync tells those who stayed as they were as well."""
    if walked.kind is SpanKind.RESYNC:
        return is_told_anew(walked.tell)
    return partial(is_told, tell=walked.tell, kind=walked.audience_kind)


def _exits_of(changes: Iterator[Change]) -> Iterator[Change]:
    return (change for change in changes if change.after is None)


def told_points(pair: Pair):  # type: ignore[no-untyped-def]  # a compound select
    """Snapshots of which ``pair`` was told: whole, and up to a user by spans abandoned since.

    A span that was killed before its first commit may have sent something all the same; only one
    that was held to the end surely did not.
    """
    of_span = of_pair(span, *pair)
    last_whole = (
        select(func.coalesce(func.max(span.c.number), 0))
        .where(of_span, span.c.state == SpanState.COMPLETED)
        .scalar_subquery()
    )
    told_seq = select(told.c.told_seq).where(of_pair(told, *pair))
    whole = select(told.c.told_seq.label("seq"), null().label("up_to")).where(of_pair(told, *pair))
    up_to = func.coalesce(span.c.position, "").label("up_to")
    parts = select(span.c.to_seq.label("seq"), up_to).where(
        of_span,
        span.c.state == SpanState.ABANDONED,
        span.c.held_for.is_(None),
        span.c.number > last_whole,
        # Of a pair that was let go, less is known than it was told.
        span.c.to_seq > func.coalesce(told_seq.scalar_subquery(), 0),
    )
    return whole.union(parts)


def set_told(connection: Connection, pair: Pair, seq: int) -> None:
    here = update(told).where(of_pair(told, *pair))
    if not connection.execute(here.values(told_seq=seq)).rowcount:
        connection.execute(insert(told).values(**pair._asdict(), told_seq=seq))
