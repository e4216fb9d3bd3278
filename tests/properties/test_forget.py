"""After forgetting, all that can be read is the log of a world in which the user never was (P21).

Whatever was captured, held, pruned, opened, told in part and rejected before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audience_sync.domain.audience import Seq, Tell
from audience_sync.domain.change import Change
from audience_sync.domain.guard import Limits
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Refusal, Span, Tally
from audience_sync.errors import StoreFailed
from audience_sync.store import chunks, schema
from audience_sync.store.chunk_rows import changed, entered
from audience_sync.store.engine import Database
from audience_sync.store.forget import Forgetting, Order
from audience_sync.store.installation import installation_of
from audience_sync.store.leases import Leases
from audience_sync.store.orders import Given, Orders
from tests.fakes.snapshot_log import (
    HOUR,
    START,
    Clock,
    Log,
    Members,
    counted,
    difference,
    execute,
    new_lease,
)

IDS = ["10", "9", "B", "a", "aa", "b", "é", "z", "ￜ", "𝔸"]
EMAILS = ["x@example.com", "y@example.com"]
ANN = Given(actor="ann@ops")
DESTINATIONS = ["crisp", "segment"]
TELLS = [frozenset(Tell), frozenset({Tell.ENTERED, Tell.EXITED}), frozenset({Tell.UPDATED})]

MEMBERS = st.binary(min_size=len(IDS), max_size=len(IDS)).map(
    lambda codes: {
        user_id: {"email": EMAILS[code % 2]}
        for user_id, code in zip(IDS, codes, strict=True)
        if code % 3
    }
)
STEPS = st.one_of(
    st.tuples(st.just("put"), MEMBERS, st.booleans()),
    st.tuples(st.just("put"), MEMBERS, st.booleans()),
    st.tuples(st.just("hold"), MEMBERS, st.none()),
    st.tuples(st.just("prune"), st.integers(0, 5), st.none()),
    st.tuples(st.just("walk"), st.sampled_from(DESTINATIONS), st.integers(0, 12)),
    st.tuples(st.just("walk"), st.sampled_from(DESTINATIONS), st.integers(0, 12)),
    st.tuples(st.just("retry"), st.sampled_from(DESTINATIONS), st.none()),
    st.tuples(st.just("resync"), st.sampled_from(DESTINATIONS), st.none()),
)
HISTORIES = st.tuples(MEMBERS, st.lists(STEPS, min_size=1, max_size=9))
SOME = st.sets(st.sampled_from([*IDS, "nobody"]), min_size=1, max_size=3)


class World:
    def __init__(self, database: Database, rows_per_chunk: int) -> None:
        installation_of(database, START)
        self.database = database
        self.log = Log(database, rows_per_chunk=rows_per_chunk)
        self.orders = Orders(database, self.log.clock)
        self.held: list[tuple[int, int, dict[str, Any]]] = []
        """Id and predecessor of each held snapshot, and its members."""

    def do(self, step: tuple[str, Any, Any]) -> None:
        what, first, second = step
        if what == "put" and difference(self.log.kept[self.log.seq], first):
            self.log.put(first, base=second)
            self.held.clear()
        elif what == "hold":
            held = self.log.hold(first)
            self.held.append((held.id, self.log.seq, first))
        elif what == "prune":
            self.log.snapshots._keep = timedelta(hours=first)
            self.log.snapshots.prune(self.log.key, self.log.clock.now, self.log.lease)
        elif what == "walk":
            self.walk(first, second)
        elif what == "retry":
            self.orders.retry([self.log.key], [first], ANN)
        elif what == "resync":
            self.orders.resync(self.log.key, [first], ANN)
            self.log.clock.now += HOUR

    def walk(self, destination: str, steps: int) -> None:
        """Open what waits, and tell so many members; every third is rejected."""
        spans = self.log.spans
        lane = new_lease(self.database, f"deliver:{destination}:any")
        for span in [s for kind in Lane for s in spans.superseded(destination, kind)]:
            spans.abandon(span, lane)
        for waiting in spans.waiting(destination, [self.log.key]):
            tell = TELLS[steps % 3]
            spans.open(waiting, destination, tell=tell, limits=Limits(), lease=lane)
        for span in spans.unfinished(destination):
            told = [change.user_id for change in spans.changes(span)]
            if part := told[:steps]:
                tally = Tally(last_user_id=part[-1], accepted=len(part) - len(part[::3]))
                tally.rejected = [Refusal(user_id=user_id, reason="no") for user_id in part[::3]]
                spans.advance(span, span.books.add(tally), tally, lane)
            if len(told) <= steps:
                (done,) = spans.unfinished(destination)
                spans.complete(done, lane)

    def unfinished(self) -> list[Span]:
        return [span for name in DESTINATIONS for span in self.log.spans.unfinished(name)]

    def net(self, from_seq: int, to_seq: int) -> list[Change] | None:
        """``None``: no longer kept."""
        try:
            return self.log.net(from_seq, to_seq)
        except StoreFailed:
            return None

    def all_net(self) -> dict[tuple[int, int], list[Change] | None]:
        newest = self.log.seq
        return {(a, b): self.net(a, b) for a in range(newest + 1) for b in range(a, newest + 1)}

    def rows(self, sql: str) -> list[Any]:
        with self.database.read() as connection:
            return list(connection.exec_driver_sql(sql))

    def forget(self, user_ids: set[str]) -> None:
        execute(self.database, "UPDATE lease SET expires_at = 0")
        order = Order(user_ids=sorted(user_ids), given=ANN)
        Forgetting(self.database, Leases(self.database), Clock()).forget(order)
        self.log.lease = new_lease(self.database, f"capture:{self.log.key}")

    def check_nowhere(self, user_ids: set[str]) -> None:
        for sql in ("SELECT position FROM span", "SELECT user_id FROM rejection"):
            assert not user_ids & {row[0] for row in self.rows(sql)}
        sql = "SELECT part, rows, first_user_id, last_user_id, payload FROM chunk"
        for part, rows, first, last, payload in self.rows(sql):
            batch = chunks.decode(bytes(payload))
            found = batch.column(0).to_pylist()
            assert not user_ids & set(found)
            assert (rows, first, last) == (len(found), found[0], found[-1])
            assert list((entered if part == "base" else changed)(batch))

    def check_counts(self, kept: dict[int, Members]) -> None:
        sql = "SELECT seq, previous, entered, exited, updated, members FROM snapshot {} ORDER BY id"
        for _, previous, entries, exits, _, members in self.rows(sql.format("")):
            assert previous + entries - exits == members
        for row in self.rows(sql.format("WHERE state = 'current'")):
            before, after = kept[row[0] - 1], kept[row[0]]
            if self.net(row[0] - 1, row[0]) is None or row[0] == 1:
                continue
            found = counted(before, difference(before, after))
            assert tuple(row[2:5]) == (found.entered, found.exited, found.updated)

    def check_held(self, kept: dict[int, Members], user_ids: set[str]) -> None:
        for snapshot_id, seq, members in self.held[-5:]:
            after = without(members, user_ids)
            sql = f"SELECT payload FROM chunk WHERE snapshot_id = {snapshot_id} ORDER BY ordinal"
            stored = [c for row in self.rows(sql) for c in changed(chunks.decode(bytes(row[0])))]
            assert stored == difference(kept[seq], after)
            sql = f"SELECT previous, members FROM snapshot WHERE id = {snapshot_id}"
            assert [tuple(row) for row in self.rows(sql)] == [(len(kept[seq]), len(after))]


def without(members: Members, user_ids: set[str]) -> dict[str, Any]:
    return {user_id: row for user_id, row in members.items() if user_id not in user_ids}


def never(changes: list[Change], user_ids: set[str]) -> list[Change]:
    return [change for change in changes if change.user_id not in user_ids]


def forgets(store: Callable[[], Any], options: settings) -> None:
    @options
    @given(HISTORIES, SOME, st.integers(1, 4))
    def check(history: Any, user_ids: set[str], rows_per_chunk: int) -> None:
        first, steps = history
        with store() as database:
            world = World(database, rows_per_chunk)
            world.log.put(first)
            for step in steps:
                world.do(step)
            compare(world, user_ids)

    check()


def compare(world: World, user_ids: set[str]) -> None:
    nets = world.all_net()
    spans = world.unfinished()
    walks = {span.id: list(world.log.spans.changes(span)) for span in spans}
    world.forget(user_ids)

    kept = {seq: without(members, user_ids) for seq, members in world.log.kept.items()}
    world.check_nowhere(user_ids)
    world.check_counts(kept)
    world.check_held(kept, user_ids)
    for (from_seq, to_seq), before in nets.items():
        after = world.net(from_seq, to_seq)
        if before is not None:
            assert after == never(before, user_ids) == difference(kept[from_seq], kept[to_seq])
    for span, was in zip(world.unfinished(), spans, strict=True):
        rest = list(world.log.spans.changes(span))
        assert rest == never(walks[span.id], user_ids)
        assert span.books.handled == was.books.handled
        assert span.books.remaining == len(rest)
        assert replace(span, position=was.position, books=was.books) == was

    world.log.kept = kept
    members = {user_id: {"email": "z@example.com"} for user_id in ("b", "new")}
    world.log.put(without(members, user_ids))
    assert world.log.members(world.log.seq) == without(members, user_ids)
    found = world.log.snapshots.membership(world.log.key, Seq(world.log.seq))
    assert found.members == len(without(members, user_ids))


# Long enough for hypothesis to find the smallest failing history.
@pytest.mark.timeout(600)
def test_on_sqlite() -> None:
    @contextmanager
    def store() -> Iterator[Database]:
        database = Database("sqlite://")
        with database.write() as connection:
            schema.metadata.create_all(connection)
        yield database
        database.close()

    forgets(store, settings(max_examples=60))


def test_on_postgres(postgres_url: str) -> None:
    database = Database(postgres_url)

    @contextmanager
    def store() -> Iterator[Database]:
        with database.write() as connection:
            schema.metadata.drop_all(connection)
            schema.metadata.create_all(connection)
        yield database

    forgets(store, settings(max_examples=8, derandomize=True, database=None))
    database.close()
