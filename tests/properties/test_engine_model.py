"""The engine against plain dicts: whatever was stored, and whatever a source gives now."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from audience_sync.domain.audience import ColumnType, Kind
from audience_sync.domain.guard import Counts
from audience_sync.engines.duckdb import DuckDBEngine
from audience_sync.errors import SourceRefused
from audience_sync.pipeline.ports.reading import Engine
from tests.fakes.memberships import (
    Members,
    by_bytes,
    differences,
    found_changes,
    found_members,
    stored,
)

COLUMNS = {"plan": ColumnType.STRING, "orders": ColumnType.INT64, "score": ColumnType.FLOAT64}
SCHEMA = pa.schema(
    {"user_id": pa.string(), "plan": pa.string(), "orders": pa.int64(), "score": pa.float64()}
)
UNUSABLE = {
    None: "user_id is missing",
    " ": "user_id is empty or white space",
    "a ": "user_id starts or ends with white space",
    "NaN": "user_id is a word for nothing (null, NaN, None, undefined)",
    "1.5": "user_id looks like a float",
    "a\0": "user_id holds control characters",
}
UNUSABLE_SCORE = "score is not a number that can travel (NaN, Inf, too large)"

USERS = st.sampled_from(["a", "b", "B", "ab", "é", "ﬀ", "文", "😀", "10", "9", "u-1", "u 1"])
ROWS = st.fixed_dictionaries(
    {
        "plan": st.sampled_from(["", "free", "pro", "é", None]),
        "orders": st.sampled_from([0, 1, -1, 2**63 - 1, None]),
        "score": st.sampled_from([0.0, 0.1, -2.5, 1e300, None]),
    }
)
SICK = st.builds(
    lambda row, score: row | {"score": score},
    ROWS,
    st.sampled_from([math.nan, math.inf, -math.inf]),
)
HISTORY = st.lists(st.dictionaries(USERS, ROWS, max_size=8), min_size=1, max_size=4)
READ = st.lists(
    st.tuples(USERS, ROWS)
    | st.tuples(USERS, ROWS)
    | st.tuples(USERS, SICK)
    | st.tuples(st.sampled_from(list(UNUSABLE)), ROWS),
    max_size=14,
)

Read = Sequence[tuple[str | None, dict[str, Any]]]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with duckdb.connect(":memory:", config={"threads": 2}) as con:
        yield DuckDBEngine(con.cursor)


@pytest.mark.timeout(400)  # a failure takes a while to shrink
@settings(max_examples=60)
@given(history=st.none() | HISTORY, read=READ, also_unchanged=st.booleans(), seed=st.integers())
def test_a_comparison_finds_what_a_loop_would_find(
    engine: Engine,
    history: list[Members] | None,
    read: list[tuple[str | None, dict[str, Any]]],
    also_unchanged: bool,
    seed: int,
) -> None:
    was: Members = history[-1] if history else {}
    if also_unchanged:
        read = [*((user, dict(row)) for user, row in was.items()), *read]
    now, duplicates = expected(was, read)
    changes = differences(was, now)

    shuffle = random.Random(seed)
    digests = set()
    for _ in range(2):
        shuffle.shuffle(read)
        previous = stored(history, COLUMNS, chunk_rows=shuffle.randint(1, 4)) if history else None
        rows = reader(read, batch_rows=shuffle.randint(1, 5))
        with engine.compare(previous, rows, reserved="k") as comparison:
            assert found_changes(comparison) == changes
            members = found_members(comparison)
            assert members == now
            assert list(members) == by_bytes(now)
            assert comparison.counts == counted(was, now)
            assert comparison.refused.by_reason == refused(read)
            assert comparison.refused.duplicates == duplicates
            assert comparison.refused.rows == len(read)
            digests.add(comparison.digest)
    assert len(digests) == 1


@pytest.mark.timeout(400)
@settings(max_examples=60)
@given(history=st.none() | HISTORY, read=READ, batch_rows=st.integers(1, 5))
@example(  # of b a row without a value, and one that is refused, beside somebody who is there twice
    history=[{user: {"plan": "", "orders": 0, "score": 0.0} for user in "ab"}],
    read=[
        ("a", {"plan": "", "orders": 0, "score": 0.1}),
        ("a", {"plan": "", "orders": 0, "score": 0.1}),
        ("b", {"plan": "", "orders": 0, "score": None}),
        ("b", {"plan": "", "orders": 0, "score": math.nan}),
    ],
    batch_rows=1,
)
def test_of_a_computed_trait_every_user_has_one_value(
    engine: Engine,
    history: list[Members] | None,
    read: list[tuple[str | None, dict[str, Any]]],
    batch_rows: int,
) -> None:
    """The score is the value here."""
    history = [with_value(members) for members in history] if history else None
    was: Members = history[-1] if history else {}
    now, duplicates = expected(was, [r for r in read if r[1]["score"] is not None])
    previous = None
    if history:
        columns = {"value" if n == "score" else n: t for n, t in COLUMNS.items()}
        previous = stored([valued(members) for members in history], columns)
    rows = reader(read, batch_rows)
    rows = pa.RecordBatchReader.from_batches(
        valued_schema := rows.schema.set(3, pa.field("value", pa.float64())),
        [pa.record_batch(batch.columns, valued_schema) for batch in rows],
    )
    comparing = engine.compare(previous, rows, reserved="k", kind=Kind.COMPUTED_TRAIT)
    if users := of_several_values(read):
        with pytest.raises(SourceRefused, match=rf"\(users: {users}\)"), comparing:
            pass
        return
    with comparing as comparison:
        assert found_changes(comparison) == differences(valued(was), valued(now))
        assert found_members(comparison) == valued(now)
        assert comparison.counts == counted(was, now)
        assert comparison.refused.duplicates == duplicates


def with_value(members: Members) -> Members:
    return {user: row for user, row in members.items() if row["score"] is not None}


def valued(members: Members) -> dict[str, dict[str, Any]]:
    return {
        user: {"value" if name == "score" else name: value for name, value in row.items()}
        for user, row in members.items()
    }


def of_several_values(read: Read) -> int:
    values: dict[str, set[float | None]] = {}
    for user, row in read:
        if user is not None and reason(user, row) is None:
            values.setdefault(user, set()).add(row["score"])
    return sum(len(found) > 1 for found in values.values())


def expected(was: Members, read: Read) -> tuple[dict[str, dict[str, Any]], int]:
    """Who is a member now, and how many good rows were duplicates."""
    good: dict[str, list[dict[str, Any]]] = {}
    sick = set()
    for user, row in read:
        if user is None or user in UNUSABLE:
            continue
        if reason(user, row):
            sick.add(user)
        else:
            good.setdefault(user, []).append(row)
    now = {user: min(rows, key=rank) for user, rows in good.items()}
    now |= {user: dict(was[user]) for user in sick if user in was and user not in good}
    return now, sum(len(rows) - 1 for rows in good.values())


def rank(row: dict[str, Any]) -> list[tuple[bool, object]]:
    """Column by column in order of their names; no value comes last."""
    return [(value is None, value if value is not None else 0) for _, value in sorted(row.items())]


def reason(user: str | None, row: dict[str, Any]) -> str | None:
    if user is None or user in UNUSABLE:
        return UNUSABLE[user]
    score = row["score"]
    return None if score is None or math.isfinite(float(score)) else UNUSABLE_SCORE


def refused(read: Read) -> dict[str, int]:
    return Counter(why for user, row in read if (why := reason(user, row)))


def counted(was: Members, now: Members) -> Counts:
    return Counts(
        previous=len(was),
        entered=len(now.keys() - was.keys()),
        exited=len(was.keys() - now.keys()),
        updated=sum(was[user] != now[user] for user in was.keys() & now.keys()),
        members=len(now),
    )


def reader(read: Read, batch_rows: int) -> pa.RecordBatchReader:
    table = pa.Table.from_pylist([{"user_id": user, **row} for user, row in read], schema=SCHEMA)
    return pa.RecordBatchReader.from_batches(SCHEMA, table.to_batches(batch_rows))
