"""An audience's log made by hand: captures that need no source and no engine, and their record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pyarrow as pa
from sqlalchemy import text

from audience_sync.domain.audience import AudienceKey, Columns, ColumnType, Kind, Row, Seq
from audience_sync.domain.change import Change
from audience_sync.domain.guard import Counts
from audience_sync.engines.columns import changes_schema, members_schema
from audience_sync.pipeline.ports.capturing import Capture, Snapshot
from audience_sync.pipeline.ports.reading import Refused
from audience_sync.store.engine import Database
from audience_sync.store.leases import HeldLease, Leases
from audience_sync.store.snapshots import Snapshots
from audience_sync.store.spans import Spans

Members = Mapping[str, Row]

START = datetime(2026, 10, 7, 6, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
VIP = AudienceKey("vip")
EMAIL: Columns = {"email": ColumnType.STRING}


class Clock:
    """Stands still until it is told to move."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def people(*ids: str) -> dict[str, Row]:
    return {user_id: {"email": f"{user_id}@example.com"} for user_id in ids}


def byte_order(ids: Sequence[str]) -> list[str]:
    return sorted(ids, key=str.encode)


def difference(before: Members, after: Members) -> list[Change]:
    """What the store must say, in its order."""
    return [
        Change(user_id=user_id, before=before.get(user_id), after=after.get(user_id))
        for user_id in byte_order([*{**before, **after}])
        if before.get(user_id) != after.get(user_id)
    ]


def member_batches(members: Members, columns: Columns, rows: int) -> Iterator[pa.RecordBatch]:
    listed = [{"user_id": u, **members[u]} for u in byte_order([*members])]
    return _sliced(pa.Table.from_pylist(listed, schema=members_schema(columns)), rows)


def change_batches(
    changes: Sequence[Change], columns: Columns, rows: int
) -> Iterator[pa.RecordBatch]:
    listed = [
        {"user_id": c.user_id, "before": c.before is not None, "after": c.after is not None}
        | {f"before.{name}": value for name, value in (c.before or {}).items()}
        | {f"after.{name}": value for name, value in (c.after or {}).items()}
        for c in changes
    ]
    return _sliced(pa.Table.from_pylist(listed, schema=changes_schema(columns, columns)), rows)


def _sliced(table: pa.Table, rows: int) -> Iterator[pa.RecordBatch]:
    for batch in table.to_batches():
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def counted(before: Members, changes: Sequence[Change]) -> Counts:
    entered = sum(c.before is None for c in changes)
    exited = sum(c.after is None for c in changes)
    return Counts(
        previous=len(before),
        entered=entered,
        exited=exited,
        updated=len(changes) - entered - exited,
        members=len(before) + entered - exited,
    )


@dataclass
class Log:
    """One audience of a store, with a plain record of what was put in."""

    database: Database
    key: AudienceKey = VIP
    rows_per_chunk: int = 2
    clock: Clock = field(default_factory=Clock)
    kind: Kind = Kind.AUDIENCE
    columns: Columns = field(default_factory=lambda: EMAIL)
    kept: dict[int, dict[str, Row]] = field(default_factory=lambda: {0: {}})
    """Membership at each seq."""

    def __post_init__(self) -> None:
        self.snapshots = Snapshots(self.database, self.clock, timedelta(0))
        self.spans = Spans(self.database, self.clock)
        self.lease = Leases(self.database).acquire(f"capture:{self.key}")
        self._plans = count(1)

    @property
    def seq(self) -> Seq:
        return Seq(max(self.kept))

    def capture(self, members: Members, **other: Any) -> Capture:
        """What comparing ``members`` with the newest snapshot would give."""
        values: dict[str, Any] = {
            "audience": self.key,
            "name": self.key.upper(),
            "kind": self.kind,
            "cycle_time": self.clock.now,
            "next_due": self.clock.now + 3 * HOUR,
            "from_seq": self.seq,
            "columns": self.columns,
            "counts": counted(self.kept[self.seq], self.changes(members)),
            "refused": Refused(rows=len(members) + 1, by_reason={"user_id is missing": 1}),
            "plan_id": f"20261007T0600Z-{next(self._plans):012x}",
            "query_hash": "a1c9",
        }
        return Capture(**(values | other))

    def changes(self, members: Members) -> list[Change]:
        return difference(self.kept[self.seq], members)

    def stage(self, members: Members, *, base: bool = False, **other: Any) -> int:
        changes = change_batches(self.changes(members), self.columns, self.rows_per_chunk)
        rows = member_batches(members, self.columns, self.rows_per_chunk)
        return self.snapshots.stage(
            self.capture(members, **other),
            changes=changes if self.seq else None,
            base=rows if base or not self.seq else None,
            lease=self.lease,
        )

    def put(self, members: Members, **other: Any) -> Snapshot:
        """Stage and commit; the clock moves on by an hour."""
        staged = self.stage(members, **other)
        made = self.snapshots.commit(staged, self.lease, started_at=self.clock.now)
        if not made.held_for:
            self.kept[made.seq] = dict(members)
        self.clock.now += HOUR
        return made

    def hold(self, members: Members) -> Snapshot:
        return self.put(members, held_for=("31 % would leave (limit 20 %)",))

    def approve(self, held: Snapshot, members: Members) -> None:
        self.snapshots.approve(held, self.lease, reason="seen", actor="ann@ops")
        self.kept[held.seq] = dict(members)

    def net(self, from_seq: int, to_seq: int) -> list[Change]:
        return list(self.spans.net(self.key, Seq(from_seq), Seq(to_seq)))

    def members(self, seq: int) -> dict[str, Row]:
        return {c.user_id: c.after for c in self.net(0, seq) if c.after is not None}

    def difference(self, from_seq: int, to_seq: int) -> list[Change]:
        return difference(self.kept[from_seq], self.kept[to_seq])


def new_lease(database: Database, name: str = "deliver:crisp:initial") -> HeldLease:
    """Held by this process from now on; a former holder loses it."""
    execute(database, "UPDATE lease SET expires_at = 0 WHERE name = :name", name=name)
    return Leases(database).acquire(name)


def scalar(database: Database, sql: str, **values: Any) -> Any:
    with database.read() as connection:
        return connection.scalar(text(sql), values)


def column(database: Database, sql: str, **values: Any) -> list[Any]:
    with database.read() as connection:
        return list(connection.scalars(text(sql), values))


def execute(database: Database, sql: str, **values: Any) -> None:
    with database.write() as connection:
        connection.execute(text(sql), values)
