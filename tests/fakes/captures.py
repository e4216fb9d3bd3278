"""Memberships put into a real store without a source or an engine."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from audience_sync.domain.audience import AudienceKey, Kind, Seq
from audience_sync.domain.guard import Counts
from audience_sync.pipeline.ports import Capture, Refused, Snapshot
from audience_sync.store import migrate
from audience_sync.store.engine import Database
from audience_sync.store.installation import installation_of
from audience_sync.store.leases import Leases
from audience_sync.store.snapshots import Snapshots

START = datetime(2026, 1, 1, tzinfo=UTC)
MEMBERS = pa.schema({"user_id": pa.string()})
CHANGES = pa.schema({"user_id": pa.string(), "before": pa.bool_(), "after": pa.bool_()})


def new_store(url: str) -> Database:
    database = Database(url)
    migrate.upgrade(database)
    installation_of(database, START)
    return database


class Captured:
    """What each audience's members are; ``capture`` makes the next snapshot, a day later."""

    def __init__(self, database: Database) -> None:
        self._leases = Leases(database)
        self._snapshots = Snapshots(database, lambda: START)
        self.members: dict[AudienceKey, set[str]] = {}
        self._seq: dict[AudienceKey, int] = {}

    def capture(self, key: AudienceKey, user_ids: Collection[str]) -> Snapshot:
        before, after = self.members.get(key, set()), set(user_ids)
        seq = self._seq.get(key, 0)
        with self._leases.hold(f"capture:{key}") as lease:
            staged = self._snapshots.stage(
                _capture(key, Seq(seq), before, after),
                changes=[_changes(before, after)] if seq else None,
                base=None if seq else [_members(after)],
                lease=lease,
            )
            snapshot = self._snapshots.commit(staged, lease, started_at=START)
        self.members[key], self._seq[key] = after, seq + 1
        return snapshot


def _capture(key: AudienceKey, seq: Seq, before: set[str], after: set[str]) -> Capture:
    cycle_time = START + timedelta(days=seq)
    return Capture(
        audience=key,
        name=str(key),
        kind=Kind.AUDIENCE,
        cycle_time=cycle_time,
        next_due=cycle_time + timedelta(days=1),
        from_seq=seq,
        columns={},
        counts=Counts(
            previous=len(before),
            entered=len(after - before),
            exited=len(before - after),
            updated=0,
            members=len(after),
        ),
        refused=Refused(rows=len(after)),
        plan_id=f"{cycle_time:%Y%m%dT%H%MZ}-{seq}",
        query_hash="hash",
    )


def _members(user_ids: set[str]) -> pa.RecordBatch:
    return pa.record_batch({"user_id": sorted(user_ids)}, schema=MEMBERS)


def _changes(before: set[str], after: set[str]) -> pa.RecordBatch:
    changed = sorted(before ^ after)
    columns = {
        "user_id": changed,
        "before": [user_id in before for user_id in changed],
        "after": [user_id in after for user_id in changed],
    }
    return pa.record_batch(columns, schema=CHANGES)
