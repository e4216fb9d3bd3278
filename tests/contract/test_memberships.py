"""Members at any kept snapshot, on both databases: forwards and backwards from what is whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from audience_sync.domain.audience import Columns, ColumnType, Row, Seq, Tell
from audience_sync.domain.guard import Limits
from audience_sync.domain.span import SpanKind
from audience_sync.engines.instance import Instance, open_instance
from audience_sync.engines.members import DuckDBMembers
from audience_sync.errors import StoreFailed, UsageError
from audience_sync.pipeline.ports.delivering import Waiting
from audience_sync.pipeline.ports.reading import Membership
from audience_sync.store import chunks
from audience_sync.store.engine import Database
from tests.fakes.snapshot_log import (
    Log,
    change_batches,
    column,
    difference,
    execute,
    member_batches,
    new_lease,
    people,
)

PLAN: Columns = {"email": ColumnType.STRING, "plan": ColumnType.STRING}


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    spill: Path = tmp_path_factory.mktemp("spill")
    opened = open_instance(memory_limit=256 * 2**20, threads=1, spill=spill)
    yield opened
    opened.close()


@pytest.fixture
def log(database: Database) -> Log:
    return Log(database)


@pytest.fixture
def members(instance: Instance) -> DuckDBMembers:
    return DuckDBMembers(instance.cursor)


def found(members: DuckDBMembers, membership: Membership) -> list[tuple[str, Row]]:
    rows = [row for batch in members.read(membership) for row in batch.to_pylist()]
    return [(row.pop("user_id"), row) for row in rows]


def check(log: Log, members: DuckDBMembers, *seqs: int) -> None:
    for seq in seqs:
        membership = log.snapshots.membership(log.key, Seq(seq))
        expected = sorted(log.kept[seq].items(), key=lambda item: item[0].encode())
        assert found(members, membership) == expected, seq


def prune(log: Log, *, keep: timedelta = timedelta(days=1)) -> None:
    log.snapshots._keep = keep
    log.snapshots.prune(log.key, log.clock.now, log.lease)


def bases(log: Log) -> list[int]:
    return column(log.database, "SELECT seq FROM snapshot WHERE has_base ORDER BY seq")


def with_plan(members: Mapping[str, Row]) -> dict[str, Row]:
    return {user_id: {**row, "plan": "pro"} for user_id, row in members.items()}


def put_with_plan(log: Log, members: Mapping[str, Row], *, base: bool, was: bool) -> None:
    """A snapshot with another column; everyone's row is stored anew when it ``was`` not there."""
    changes = difference(log.kept[log.seq], members)
    rows = [  # as the engine writes them: the columns of each side
        batch.drop_columns(() if was else ("before.plan",))
        for batch in change_batches(changes, PLAN, 2)
    ]
    staged = log.snapshots.stage(
        log.capture(members, columns=PLAN),
        changes=rows,
        base=member_batches(members, PLAN, 2) if base else None,
        lease=log.lease,
    )
    made = log.snapshots.commit(staged, log.lease, started_at=log.clock.now)
    log.kept[made.seq] = dict(members)


def test_forwards_over_a_base(log: Log, members: DuckDBMembers) -> None:
    log.put(people("b", "é", "z", "𝔸"))
    log.put(people("a", "b", "é", "𝔸"))
    log.put(people("a", "é", "z", "𝔸") | {"a": {"email": "new@example.com"}})
    check(log, members, 1, 2, 3)


def test_backwards_over_changes_of_the_same_user(log: Log, members: DuckDBMembers) -> None:
    log.put(people("a", "b", "c"))
    log.put(people("a", "c") | {"c": {"email": "c2@example.com"}})
    log.put(people("a", "b") | {"b": {"email": "b3@example.com"}})
    log.put(people("a", "b", "c"))
    log.put(people("c", "d"), base=True)
    prune(log)
    assert bases(log) == [5]
    check(log, members, 1, 2, 3, 4, 5)


def test_backwards_over_another_column(log: Log, members: DuckDBMembers) -> None:
    log.put(people("a", "b", "c"))
    log.put(people("a", "c", "e"))
    put_with_plan(log, with_plan(people("a", "c", "d")), base=True, was=False)
    put_with_plan(log, with_plan(people("a", "d")), base=True, was=True)
    prune(log)
    assert bases(log) == [4]
    check(log, members, 1, 2, 3, 4)


def test_forwards_over_another_column_whose_base_is_gone(log: Log, members: DuckDBMembers) -> None:
    log.put(people("a", "b", "c"))
    waiting = Waiting(
        audience=log.key, kind=SpanKind.INITIAL, told_seq=None, to_seq=Seq(1), members=3
    )
    lease = new_lease(log.database)
    log.spans.open(waiting, "crisp", tell=frozenset(Tell), limits=Limits(), lease=lease)
    log.put(people("a", "b"))
    put_with_plan(log, with_plan(people("a", "d")), base=True, was=False)
    put_with_plan(log, with_plan(people("a", "b")), base=False, was=True)
    put_with_plan(log, with_plan(people("a", "c")), base=True, was=True)
    prune(log)
    assert bases(log) == [1, 5]
    check(log, members, 1, 2, 3, 4, 5)


def test_nobody(log: Log, members: DuckDBMembers) -> None:
    log.put({})
    log.put(people("a"))
    log.put({})
    check(log, members, 1, 2, 3)


def test_what_is_kept_is_said(log: Log) -> None:
    for user_id in "abc":
        log.put(people(user_id), base=True)
    prune(log, keep=timedelta(0))
    log.put(people("d"))
    for seq in (0, 1, 5):
        with pytest.raises(UsageError, match=f"no snapshot {seq} of vip is kept") as raised:
            log.snapshots.membership(log.key, Seq(seq))
        assert raised.value.hint == "kept are 3 to 4"


def test_members_that_are_missing_are_never_taken_for_fewer(
    log: Log, members: DuckDBMembers
) -> None:
    log.put(people("a", "b"))
    log.put(people("a", "b", "c"))
    execute(log.database, "UPDATE snapshot SET members = 4 WHERE seq = 2")
    with pytest.raises(StoreFailed, match="do not add up"):
        found(members, log.snapshots.membership(log.key, Seq(2)))
    execute(log.database, f"DELETE FROM chunk WHERE part = '{chunks.BASE}'")
    with pytest.raises(StoreFailed, match="no longer kept"):
        found(members, log.snapshots.membership(log.key, Seq(1)))
