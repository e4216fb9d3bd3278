"""A few users in an audience's log: their rows at a snapshot, and what changed about them.

Only the chunks that can hold them are read: each says from which ``user_id`` to which it goes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Row as SqlRow
from sqlalchemy import func, select

from audience_sync.domain.audience import AudienceKey, Row, Seq
from audience_sync.domain.change import Change
from audience_sync.errors import UsageError
from audience_sync.store import chunks
from audience_sync.store.chunk_rows import changed, entered
from audience_sync.store.engine import Database
from audience_sync.store.net_changes import current_log, nearest_base
from audience_sync.store.schema import audience, chunk, snapshot

FIRST = Seq(1)

LogRow = SqlRow[Any]
"""What ``current_log`` gives of one snapshot."""


class Lookups:
    """Looks users up in what is kept. Nothing is held open while chunks are read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def kept(self, key: AudienceKey) -> list[Seq]:
        """The snapshots whose members can still be read, oldest first."""
        log = self._log(key)
        stored = self._rows_of_changes(key)
        oldest = next((r.seq for r in reversed(log) if stored[r.id] != _changes(r)), None)
        return [Seq(row.seq) for row in log if oldest is None or row.seq >= oldest]

    def check_kept(self, key: AudienceKey, seq: Seq) -> None:
        """Raises UsageError, with what is kept, unless the members at ``seq`` can be read."""
        kept = self.kept(key)
        if seq in kept:
            return
        hint = f"kept are {kept[0]} to {kept[-1]}" if kept else None
        raise UsageError(f"no snapshot {seq} of {key} is kept", hint=hint)

    def state_at(
        self, key: AudienceKey, seq: Seq, user_ids: Collection[str]
    ) -> dict[str, Row | None]:
        """The row of each user at a kept snapshot; ``None``: not a member then.

        Raises:
            UsageError: there is no such snapshot.
            StoreFailed: it is no longer kept.
        """
        if not seq:
            return dict.fromkeys(user_ids)
        log = self._log(key)
        if seq not in {row.seq for row in log}:
            self.check_kept(key, seq)
        base = nearest_base(log, seq)
        forwards = base.seq <= seq
        between = [r for r in log if min(seq, base.seq) < r.seq <= max(seq, base.seq)]
        wanted = sorted(set(user_ids))
        state: dict[str, Row | None] = {}
        # Nearest to seq first, so that the first row that is met says how it was there.
        for _, change in self._find(between[::-1] if forwards else between, chunks.CHANGES, wanted):
            state.setdefault(change.user_id, change.after if forwards else change.before)
        for _, change in self._find([base], chunks.BASE, wanted):
            state.setdefault(change.user_id, change.after)
        return {user_id: state.get(user_id) for user_id in user_ids}

    def history_of(self, key: AudienceKey, user_id: str) -> list[tuple[Seq, Change]]:
        """The kept changes of one user and the snapshots that they made, newest first.

        Who was in the first snapshot entered with it, if that is still kept.
        """
        kept = self.kept(key)
        if not kept:
            return []
        log = [row for row in reversed(self._log(key)) if kept[0] < row.seq <= kept[-1]]
        history = list(self._find(log, chunks.CHANGES, [user_id]))
        if kept[0] == FIRST:
            row = self.state_at(key, FIRST, [user_id])[user_id]
            if row is not None:
                history.append((FIRST, Change(user_id=user_id, before=None, after=row)))
        return history

    def with_email(self, key: AudienceKey, email: str) -> set[str]:
        """Everyone who has, or had, this e-mail in what is kept. Reads all of it, chunk by chunk.

        Args:
            email: upper and lower case are the same.
        """
        kept, log = self.kept(key), self._log(key)
        found: set[str] = set()
        for base in [row for row in log if row.has_base][-1:]:
            for batch in chunks.read(self._database, base.id, chunks.BASE, rows=base.members):
                found |= _ids_with(batch, email, prefixes=("",))
        for row in log:
            if row.seq > kept[0]:
                rows = _changes(row)
                for batch in chunks.read(self._database, row.id, chunks.CHANGES, rows=rows):
                    found |= _ids_with(batch, email, prefixes=("before.", "after."))
        return found

    def _log(self, key: AudienceKey) -> Sequence[LogRow]:
        with self._database.read() as connection:
            return connection.execute(current_log(key).order_by(snapshot.c.seq)).all()

    def _rows_of_changes(self, key: AudienceKey) -> dict[int, int]:
        """By the id of the snapshot, rows of changes that are stored."""
        query = (
            select(chunk.c.snapshot_id, func.sum(chunk.c.rows))
            .select_from(chunk.join(snapshot).join(audience))
            .where(audience.c.key == key, chunk.c.part == chunks.CHANGES)
            .group_by(chunk.c.snapshot_id)
        )
        with self._database.read() as connection:
            return defaultdict(int, {row[0]: int(row[1]) for row in connection.execute(query)})

    def _find(
        self, log: Sequence[LogRow], part: str, wanted: Sequence[str]
    ) -> Iterator[tuple[Seq, Change]]:
        """What the snapshots of ``log`` say of the users ``wanted`` (sorted), in that order."""
        places: list[tuple[int, int]] = []
        ids: list[Sequence[str]] = []
        seqs = {row.id: Seq(row.seq) for row in log}
        for place in self._index(log, part):
            # Python compares text by code point, which is the order of the bytes of UTF-8.
            start = bisect_left(wanted, place.first_user_id)
            some = wanted[start : bisect_right(wanted, place.last_user_id)]
            if some:
                places.append((place.snapshot_id, place.ordinal))
                ids.append(some)
        to_changes = entered if part == chunks.BASE else changed
        batches = chunks.fetch(self._database, part, places)
        for (snapshot_id, _), some, batch in zip(places, ids, batches, strict=True):
            for change in to_changes(_only(batch, some)):
                yield seqs[snapshot_id], change

    def _index(self, log: Sequence[LogRow], part: str) -> Iterator[SqlRow[Any]]:
        """Where the chunks of the snapshots of ``log`` begin and end, in its order.

        Raises:
            StoreFailed: chunks are missing; they are never taken for users who are not there.
        """
        if not log:
            return
        query = (
            select(
                chunk.c.snapshot_id,
                chunk.c.ordinal,
                chunk.c.rows,
                chunk.c.first_user_id,
                chunk.c.last_user_id,
            )
            .join(snapshot)
            .where(snapshot.c.audience_id == log[0].audience_id, chunk.c.part == part)
            .where(snapshot.c.seq.between(*sorted((log[0].seq, log[-1].seq))))
            .order_by(chunk.c.snapshot_id, chunk.c.ordinal)
        )
        stored: dict[int, list[Any]] = defaultdict(list)
        with self._database.read() as connection:
            for place in connection.execute(query):
                stored[place.snapshot_id].append(place)
        for row in log:
            expected = row.members if part == chunks.BASE else _changes(row)
            if sum(place.rows for place in stored[row.id]) != expected:
                raise chunks.removed()
            yield from stored[row.id]


def _changes(row: LogRow) -> int:
    return int(row.entered + row.exited + row.updated)


def _ids_with(batch: pa.RecordBatch, email: str, *, prefixes: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for name in batch.schema.names:
        if name.casefold() in {f"{prefix}email" for prefix in prefixes}:
            same = pc.equal(pc.utf8_lower(batch.column(name)), email.lower())
            found.update(batch.column(0).filter(same).to_pylist())
    return found


def _only(batch: pa.RecordBatch, user_ids: Sequence[str]) -> pa.RecordBatch:
    return batch.filter(pc.is_in(batch.column(0), value_set=pa.array(user_ids, pa.string())))
