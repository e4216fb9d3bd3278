"""The log of snapshots equals a plain list of memberships, whatever is captured, pruned and told.

The real engine compares, the real pipeline commits, the real store keeps; the model is one dict
for each snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audience_sync.domain.audience import (
    Audience,
    AudienceKey,
    Columns,
    ColumnType,
    Seq,
    Tell,
    Value,
)
from audience_sync.domain.change import Change, compose_sets, is_told
from audience_sync.domain.guard import Limits, Verdict
from audience_sync.domain.span import Span
from audience_sync.engines import session
from audience_sync.engines.columns import ARROW_TYPE, members_schema
from audience_sync.engines.duckdb import DuckDBEngine
from audience_sync.engines.instance import open_instance
from audience_sync.engines.members import DuckDBMembers
from audience_sync.errors import StoreFailed
from audience_sync.pipeline import capture
from audience_sync.pipeline.capture import Examined
from audience_sync.store import schema
from audience_sync.store.chunk_rows import changed, entered
from audience_sync.store.engine import Database
from audience_sync.store.leases import Leases
from audience_sync.store.lookups import Lookups
from audience_sync.store.snapshots import Snapshots
from audience_sync.store.spans import Spans
from tests.fakes.snapshot_log import HOUR, START, Clock, Members, difference

KEYS = count(1)
IDS = ["a", "B", "aa", "b", "é", "ￜ", "𝔸", "z", "10", "9"]
LOOKED_UP = ["B", "aa", "nobody", "é", "𝔸", "9"]
NO_LIMITS = Limits(max_refused_rows=1.0)
DESTINATIONS = ["crisp", "segment"]
VALUES: dict[ColumnType, Sequence[Value]] = {
    ColumnType.STRING: ("x", "7", "true", None),
    ColumnType.BOOL: (True, False, None),
    ColumnType.INT64: (7, 1, None),
    ColumnType.FLOAT64: (7.0, 2.5, None),
}
P, Q = "p", "Q"
COLUMNS: Sequence[Columns] = (
    {P: ColumnType.STRING},
    {P: ColumnType.INT64},
    {P: ColumnType.FLOAT64},
    {},
    {P: ColumnType.STRING, Q: ColumnType.BOOL},
    {Q: ColumnType.INT64},
)


@dataclass(frozen=True, kw_only=True)
class Read:
    """What a source gives: typed columns, and for each id its values."""

    types: Columns
    rows: Members
    base: bool
    held: bool = False
    approve: bool = False


@st.composite
def reads(draw: st.DrawFn) -> Read:
    """One byte says whether an id is there, and with which values."""
    # The first columns come most often: a log is longest while they stay.
    types = COLUMNS[max(0, draw(st.integers(0, 9)) - 4)]
    rows = {
        user_id: {n: VALUES[t][byte // 3 % len(VALUES[t])] for n, t in types.items()}
        for user_id, byte in zip(IDS, draw(CODES), strict=True)
        if byte % 3
    }
    held = draw(st.integers(0, 4)) == 4
    return Read(
        types=types,
        rows=rows,
        base=draw(st.integers(0, 2)) == 2,
        held=held,
        approve=held and draw(st.booleans()),
    )


@st.composite
def steps(draw: st.DrawFn) -> Read | tuple[str, Any]:
    chosen = draw(st.integers(0, 7))
    if chosen < 4:
        return draw(reads())
    if chosen < 6:
        return "prune", draw(st.integers(0, 6))
    return ("open" if chosen == 6 else "complete"), draw(st.sampled_from(DESTINATIONS))


CODES = st.binary(min_size=len(IDS), max_size=len(IDS))
STEPS = st.tuples(reads(), st.lists(steps(), min_size=3, max_size=9))


@dataclass
class Model:
    """A list of memberships, and what must stay readable."""

    memberships: list[Members] = field(default_factory=lambda: [{}])
    captured_at: list[datetime] = field(default_factory=lambda: [START])
    told: dict[str, int] = field(default_factory=dict)
    walks: dict[str, Span] = field(default_factory=dict)
    lost: int = 0
    """Snapshots up to this one may be gone: a prune was allowed to take them."""

    @property
    def newest(self) -> int:
        return len(self.memberships) - 1

    def prune(self, keep_since: datetime) -> None:
        young = (s for s in range(1, self.newest + 1) if self.captured_at[s] >= keep_since)
        pins = [next(young, self.newest), *self.told.values()]
        pins += [span.from_seq or span.to_seq for span in self.walks.values()]
        self.lost = max(self.lost, min(pins) - 1)


class World:
    """One audience in a store that other examples use too."""

    def __init__(self, database: Database, instance: duckdb.DuckDBPyConnection) -> None:
        self.key = AudienceKey(f"a{next(KEYS)}")
        self.clock = Clock()
        self.model = Model()
        self.database = database
        self.snapshots = Snapshots(database, self.clock)
        self.spans = Spans(database, self.clock)
        self.lookups = Lookups(database)
        self.members = DuckDBMembers(instance.cursor)
        self.engine = DuckDBEngine(instance.cursor)
        self.lease = Leases(database).acquire(f"capture:{self.key}")

    def do(self, step: Any) -> None:
        match step:
            case Read():
                self.capture(step)
            case "prune", hours:
                self.prune(timedelta(hours=hours))
            case "open", destination:
                self.open(f"{destination} of {self.key}")
            case "complete", destination:
                self.complete(f"{destination} of {self.key}")

    def capture(self, read: Read) -> None:
        before = self.model.memberships[-1]
        with capture.examine(
            Audience(key=self.key, name="A", source="s", query="q", destinations=()),
            source=GivenRows(read),
            engine=self.engine,
            snapshots=self.snapshots,
            limits=NO_LIMITS,
            cycle_time=self.clock.now,
        ) as examined:
            columns = examined.comparison.columns
            after = {u: agreed(row, columns) for u, row in read.rows.items()}
            self.check_counts(examined, before, after)
            held = read.held and examined.current is not None
            verdict = Verdict(reasons=("looks dangerous",) if held else ())
            with base_after(-1 if read.base else 1e9):
                captured = capture.commit(
                    replace(examined, verdict=verdict),
                    snapshots=self.snapshots,
                    lease=self.lease,
                    next_due=self.clock.now + HOUR,
                    started_at=self.clock.now,
                )
        stored = captured.snapshot
        if stored is not None and held and read.approve:
            self.snapshots.approve(stored, self.lease, reason=None, actor="ann@ops")
        if stored is not None and (read.approve or not held):
            self.model.memberships.append(after)
            self.model.captured_at.append(self.clock.now)
            assert stored.seq == self.model.newest
        elif stored is None:
            assert after == before
        self.clock.now += HOUR

    def check_counts(self, examined: Examined, before: Members, after: Members) -> None:
        counts = examined.comparison.counts
        assert counts.entered == len(after.keys() - before.keys())
        assert counts.exited == len(before.keys() - after.keys())
        stayed = before.keys() & after.keys()
        if examined.current is not None and examined.comparison.columns != examined.current.columns:
            assert counts.updated == len(stayed)
        else:
            assert counts.updated == sum(before[u] != after[u] for u in stayed)

    def prune(self, keep: timedelta) -> None:
        self.snapshots._keep = keep
        self.snapshots.prune(self.key, self.clock.now, self.lease)
        self.model.prune(self.clock.now - keep)

    def open(self, destination: str) -> None:
        for waiting in self.spans.waiting(destination, [self.key]):
            self.model.walks[destination] = self.spans.open(
                waiting, destination, tell=frozenset(Tell), limits=NO_LIMITS, lease=self.lease
            )

    def complete(self, destination: str) -> None:
        self.open(destination)
        span = self.model.walks.pop(destination, None)
        if span is not None:
            self.spans.complete(span, self.lease)
            self.model.told[destination] = span.to_seq

    def check(self, *, every_pair: bool) -> None:
        """After a capture the pairs with the newest snapshot are new; prune touches all."""
        for seq in range(1, self.model.newest + 1):
            self.check_membership(seq)
            for later in range(seq if every_pair else self.model.newest, self.model.newest + 1):
                self.check_difference(seq, later)
        for span in self.model.walks.values():
            self.check_walk(span)
        if self.model.newest:
            self.check_current()
        self.check_lookups()

    def check_membership(self, seq: int) -> None:
        found = self.net(0, seq, may_fail=seq <= self.model.lost)
        if found is not None:
            assert found == difference({}, self.model.memberships[seq])

    def check_difference(self, from_seq: int, to_seq: int) -> None:
        found = self.net(from_seq, to_seq, may_fail=from_seq <= self.model.lost)
        if found is not None:
            old, new = (self.model.memberships[seq] for seq in (from_seq, to_seq))
            # A change of columns is stored for all, also where Python sees no difference (1, 1.0).
            assert [c for c in found if c.before != c.after] == difference(old, new)

    def net(self, from_seq: int, to_seq: int, *, may_fail: bool) -> list[Change] | None:
        """``None``: no longer kept, and said so."""
        try:
            return list(self.spans.net(self.key, Seq(from_seq), Seq(to_seq)))
        except StoreFailed:
            if not may_fail:
                raise
            return None

    def check_lookups(self) -> None:
        """Some users, looked up in the chunks that can hold them, at everything that is kept."""
        kept = self.lookups.kept(self.key)
        must_be = range(self.model.lost + 1, self.model.newest + 1)
        assert kept == list(range(kept[0], self.model.newest + 1)) if kept else not must_be
        assert set(must_be) <= set(kept)
        for seq in kept:
            expected = {u: self.model.memberships[seq].get(u) for u in LOOKED_UP}
            assert self.lookups.state_at(self.key, seq, LOOKED_UP) == expected
            self.check_members(seq)
        for user_id in LOOKED_UP[::2]:
            self.check_history(user_id, kept)

    def check_history(self, user_id: str, kept: Sequence[Seq]) -> None:
        found = self.lookups.history_of(self.key, user_id)
        # A change of columns is stored for all, also where Python sees no difference (1, 1.0).
        differs = [(seq, c) for seq, c in found if c.before != c.after]
        steps = [seq for seq in reversed(kept) if seq == 1 or seq > kept[0]]
        states = [[self.model.memberships[s].get(user_id) for s in (seq - 1, seq)] for seq in steps]
        assert differs == [
            (seq, Change(user_id=user_id, before=before, after=after))
            for seq, (before, after) in zip(steps, states, strict=True)
            if before != after
        ]

    def check_walk(self, span: Span) -> None:
        whole = list(self.spans.changes(span))
        old, new = (self.model.memberships[seq] for seq in (span.from_seq, span.to_seq))
        told = [
            change
            for change in difference(old, new)
            if is_told(change, span.tell, span.audience_kind)
        ]
        assert [c for c in whole if c.before != c.after] == told
        for user_id in IDS[::4]:
            rest = list(self.spans.changes(replace(span, position=user_id)))
            assert rest == [c for c in whole if c.user_id > user_id]

    def check_current(self) -> None:
        """The base and the changes that the next capture reads, laid together."""
        found = self.snapshots.membership(self.key, Seq(self.model.newest))
        sets = [_as_entered(found.base()), *(_as_changes(part()) for part in found.changes)]
        assert list(compose_sets(sets)) == difference({}, self.model.memberships[-1])

    def check_members(self, seq: Seq) -> None:
        """What an export writes, in its order; forwards or backwards from what is kept."""
        membership = self.snapshots.membership(self.key, seq)
        batches = list(self.members.read(membership))
        found = [change for batch in batches for change in entered(batch)]
        assert found == difference({}, self.model.memberships[seq])
        assert {str(batch.schema) for batch in batches} <= {str(members_schema(membership.columns))}


@dataclass(frozen=True)
class GivenRows:
    """A ``Source``: the rows of one read, in no order."""

    read_now: Read

    @contextmanager
    def read(self, query: str, cycle_time: datetime) -> Iterator[pa.RecordBatchReader]:
        rows, types = self.read_now.rows, self.read_now.types
        fields = [pa.field("user_id", pa.string())]
        fields += [pa.field(name, ARROW_TYPE[type_]) for name, type_ in types.items()]
        listed = [{"user_id": u, **rows[u]} for u in sorted(rows, key=hash_of)]
        table = pa.Table.from_pylist(listed, schema=pa.schema(fields))
        yield table.to_reader()


def hash_of(user_id: str) -> int:
    return sum(user_id.encode()) * 7919 % 101


def agreed(row: Any, columns: Columns) -> dict[str, Any]:
    """The row in the types that the snapshot has."""
    return {name: _as(row[name], type_) for name, type_ in columns.items()}


def _as(value: Any, type_: ColumnType) -> Any:
    if value is None:
        return None
    if type_ is ColumnType.STRING:
        return str(value).lower() if isinstance(value, bool) else str(value)
    if type_ is ColumnType.BOOL:
        return value in (True, "true")
    return int(value) if type_ is ColumnType.INT64 else float(value)


@contextmanager
def base_after(share: float) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capture, "BASE_AFTER", share)
        yield


def _as_entered(batches: Any) -> Iterator[Change]:
    for batch in batches:
        yield from entered(batch)


def _as_changes(batches: Any) -> Iterator[Change]:
    for batch in batches:
        yield from changed(batch)


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "CHUNK_ROWS", 4)
        spill = tmp_path_factory.mktemp("spill")
        opened = open_instance(memory_limit=256 * 2**20, threads=1, spill=spill)
        yield opened
        opened.close()


def always_as_the_model(
    store: Database, instance: duckdb.DuckDBPyConnection, options: settings
) -> None:
    @options
    @given(STEPS)
    def check(history: tuple[Read, list[Any]]) -> None:
        world = World(store, instance)
        first, later = history
        for step in (first, *later):
            world.do(step)
            world.check(every_pair=not isinstance(step, Read))

    check()


# Long enough for hypothesis to find the smallest failing history.
@pytest.mark.timeout(600)
def test_on_sqlite(instance: duckdb.DuckDBPyConnection) -> None:
    database = Database("sqlite://")
    with database.write() as connection:
        schema.metadata.create_all(connection)
    always_as_the_model(database, instance, settings(max_examples=20))
    database.close()


def test_on_postgres(instance: duckdb.DuckDBPyConnection, postgres_url: str) -> None:
    database = Database(postgres_url)
    with database.write() as connection:
        schema.metadata.create_all(connection)
    few = settings(max_examples=6, derandomize=True, database=None)
    always_as_the_model(database, instance, few)
    database.close()
