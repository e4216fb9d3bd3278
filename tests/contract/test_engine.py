"""DuckDBEngine: set by set it finds exactly what a loop over all members would find."""

from __future__ import annotations

import random
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa
import pytest

from audience_sync.domain import change as domain
from audience_sync.domain.audience import Columns, ColumnType, Kind, Tell
from audience_sync.domain.forgotten import REASON, Forgotten, reference
from audience_sync.domain.guard import Counts
from audience_sync.engines.duckdb import DuckDBEngine
from audience_sync.engines.instance import Instance, open_instance
from audience_sync.engines.session import Session
from audience_sync.errors import SourceFailed, SourceRefused
from audience_sync.pipeline.ports.reading import Batches, Engine, Membership, Refused
from audience_sync.store import chunk_rows
from tests.fakes.memberships import (
    Change,
    Members,
    differences,
    found_changes,
    found_members,
    stored,
)

KEY = "the_trait_key"
SECRET = "jane.doe"
"""Stands in values of rows that go wrong: it may be in no message."""

STRING, BOOL, INT64, FLOAT64 = ColumnType
EMAIL: Columns = {"email": STRING}


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    spill = tmp_path_factory.mktemp("spill")
    con = open_instance(memory_limit=300_000_000, threads=2, spill=spill)
    yield con
    con.close()


@pytest.fixture
def engine(instance: Instance) -> Engine:
    return DuckDBEngine(instance.cursor)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    counts: Counts
    refused: Refused
    columns: Columns
    digest: str
    changes: list[Change]
    members: dict[str, dict[str, Any]]


Rows: TypeAlias = Mapping[str, Any] | pa.Table | pa.RecordBatchReader


def reader(rows: Rows) -> pa.RecordBatchReader:
    if isinstance(rows, pa.RecordBatchReader):
        return rows
    return (rows if isinstance(rows, pa.Table) else pa.table(dict(rows))).to_reader()


def compare(
    engine: Engine,
    rows: Rows,
    previous: Membership | None = None,
    kind: Kind = Kind.AUDIENCE,
) -> Found:
    with engine.compare(previous, reader(rows), reserved=KEY, kind=kind) as comparison:
        return Found(
            counts=comparison.counts,
            refused=comparison.refused,
            columns=comparison.columns,
            digest=comparison.digest,
            changes=found_changes(comparison),
            members=found_members(comparison),
        )


def refusal(
    engine: Engine,
    rows: Rows,
    previous: Membership | None = None,
    kind: Kind = Kind.AUDIENCE,
) -> SourceRefused:
    with pytest.raises(SourceRefused) as caught:
        compare(engine, rows, previous, kind)
    assert caught.value.hint
    return caught.value


def members(**emails: str | None) -> dict[str, dict[str, Any]]:
    return {user: {"email": email} for user, email in emails.items()}


def rows_of(found: Mapping[str, Mapping[str, Any]], columns: Sequence[str] = ("email",)) -> Rows:
    return {
        "user_id": pa.array(list(found), pa.string()),
        **{name: [row[name] for row in found.values()] for name in columns},
    }


# --- entered, exited, updated --------------------------------------------------------------------


def test_the_first_comparison_has_everyone_enter(engine: Engine) -> None:
    now = members(b="b@x.io", a=None, c="c@x.io")
    found = compare(engine, rows_of(now))
    assert found.counts == Counts(previous=0, entered=3, exited=0, updated=0, members=3)
    assert found.refused == Refused(rows=3)
    assert found.columns == EMAIL
    assert found.members == now
    assert found.changes == differences({}, now)


def test_an_empty_first_read_is_an_empty_membership(engine: Engine) -> None:
    found = compare(engine, {"user_id": pa.array([], pa.string())})
    assert found.counts == Counts(previous=0, entered=0, exited=0, updated=0, members=0)
    assert (found.members, found.changes) == ({}, [])


def test_an_empty_read_has_everyone_exit(engine: Engine) -> None:
    was = members(a="a@x.io", b=None)
    found = compare(engine, rows_of({}), stored([was], EMAIL))
    assert found.counts == Counts(previous=2, entered=0, exited=2, updated=0, members=0)
    assert found.changes == differences(was, {})
    assert found.members == {}


def test_who_entered_who_exited_who_was_updated(engine: Engine) -> None:
    was = members(stays="s@x.io", leaves="l@x.io", moves="old@x.io", gains=None, loses="x@x.io")
    now = members(stays="s@x.io", enters="e@x.io", moves="new@x.io", gains="g@x.io", loses=None)
    found = compare(engine, rows_of(now), stored([was], EMAIL))
    assert found.counts == Counts(previous=5, entered=1, exited=1, updated=3, members=5)
    assert found.changes == differences(was, now)
    assert found.members == now


def test_nothing_changed(engine: Engine) -> None:
    was = members(a="a@x.io", b=None)
    found = compare(engine, rows_of(was), stored([was], EMAIL))
    assert found.counts == Counts(previous=2, entered=0, exited=0, updated=0, members=2)
    assert found.changes == []
    assert found.members == was


def test_the_previous_membership_is_the_base_with_the_last_of_all_changes(engine: Engine) -> None:
    history = [
        members(a="1", b="1", c="1", d="1"),
        members(a="2", c="1", d="2", e="1"),  # a moved, b left, d moved, e came
        members(a="3", b="3", c="1", d="1"),  # a moved again, b is back, d as at first, e left
        members(a="3", b="3", d="1", e="4"),
    ]
    now = members(a="3", b="4", c="1", d="1")
    found = compare(engine, rows_of(now), stored(history, EMAIL, chunk_rows=1))
    assert found.changes == differences(history[-1], now)
    assert found.counts == Counts(previous=4, entered=1, exited=1, updated=1, members=4)
    assert found.members == now


def test_every_type_is_compared_by_value(engine: Engine) -> None:
    columns = {"s": STRING, "b": BOOL, "i": INT64, "f": FLOAT64}
    row: dict[str, Any] = {"s": "é😀", "b": True, "i": 2**63 - 1, "f": 0.1}
    was = {f"u{i}": row for i in range(9)}
    others: list[dict[str, Any]] = [
        {"s": "e"}, {"s": None}, {"b": False}, {"b": None},
        {"i": 2**63 - 2}, {"i": None}, {"f": 0.1 + 2**-56}, {"f": None},
    ]  # fmt: skip
    now = {f"u{i}": row | other for i, other in enumerate(others)} | {"u8": row}
    found = compare(engine, rows_of(now, list(columns)), stored([was], columns))
    assert found.counts.updated == 8
    assert found.changes == differences(was, now)
    assert found.members == now


def test_more_rows_than_a_chunk_holds(engine: Engine) -> None:
    ids = [f"u{i:06}" for i in range(70_000)]
    shuffled = random.Random(1).sample(ids, len(ids))
    with engine.compare(None, reader({"user_id": shuffled}), reserved=KEY) as comparison:
        batches = list(comparison.members())
    assert max(batch.num_rows for batch in batches) <= 65_536
    assert [row for batch in batches for row in batch.column(0).to_pylist()] == ids


# --- order, scans, digest ------------------------------------------------------------------------

# In order of UTF-8 bytes; UTF-16 and most collations order them otherwise.
BYTE_ORDER = ["-", "0", "10", "9", "A", "Z", "a", "a b", "ab", "z", "ß", "é", "文", "\uffee", "😀"]


def test_changes_and_members_are_in_order_of_utf8_bytes(engine: Engine) -> None:
    assert sorted(BYTE_ORDER, key=str.encode) == BYTE_ORDER
    was = {user: {"n": 1} for user in BYTE_ORDER[::2]}
    now = {user: {"n": 2} for user in reversed(BYTE_ORDER)}
    found = compare(engine, rows_of(now, ["n"]), stored([was], {"n": INT64}, chunk_rows=1))
    assert [change.user_id for change in found.changes] == BYTE_ORDER
    assert list(found.members) == BYTE_ORDER


def test_every_call_is_a_new_scan_also_after_an_unfinished_one(engine: Engine) -> None:
    ids = [f"u{i:06}" for i in range(200_000)]
    with engine.compare(None, reader({"user_id": ids}), reserved=KEY) as comparison:
        assert next(iter(comparison.changes())).num_rows
        assert next(iter(comparison.members())).num_rows
        for scan in (comparison.changes, comparison.members, comparison.members):
            assert sum(batch.num_rows for batch in scan()) == len(ids)


def test_the_digest_does_not_depend_on_the_order_of_rows_or_on_duplicates(engine: Engine) -> None:
    was = members(a="1", b="2", c="3")
    now = {f"u{i}": {"email": str(i % 7)} for i in range(3_000)} | members(b="3")
    shuffled = random.Random(2).sample([*now, *list(now)[::10]], len(now) + 301)
    again = {"user_id": shuffled, "email": [now[user]["email"] for user in shuffled]}
    for previous in (None, stored([was], EMAIL)):
        one, two = compare(engine, rows_of(now), previous), compare(engine, again, previous)
        assert one.digest == two.digest
        assert two.refused.duplicates == 301


def test_the_digest_differs_for_any_change_of_a_row(engine: Engine) -> None:
    columns = {"x": STRING, "y": STRING}
    was: Members = {
        "a": {"x": "1", "y": "2"},
        "b": {"x": "3", "y": "4"},
        "c": {"x": None, "y": None},
    }
    others: list[Members] = [
        was,
        {**was, "a": {"x": "2", "y": "1"}},  # two columns swapped
        {**was, "a": was["b"], "b": was["a"]},  # two members swapped
        {**was, "a": {"x": "12", "y": ""}},
        {**was, "a": {"x": "1", "y": None}},
        {**was, "a": {"x": None, "y": "2"}},
        {**was, "c": {"x": "", "y": None}},
        {**was, "c": {"x": None, "y": ""}},
        {**was, "d": {"x": None, "y": None}},
        {**was, "e": {"x": None, "y": None}},
        {"a": was["a"], "b": was["b"]},
        {"a": was["a"], "c": was["c"]},
        {},
    ]
    previous = stored([was], columns)
    digests = [compare(engine, rows_of(now, ["x", "y"]), previous).digest for now in others]
    assert len(set(digests)) == len(others)
    first = [compare(engine, rows_of(now, ["x", "y"])).digest for now in others]
    assert len(set(first)) == len(others)


def test_the_digest_says_what_a_member_was_before(engine: Engine) -> None:
    now = rows_of(members(a="2"))
    one = compare(engine, now, stored([members(a="1")], EMAIL))
    two = compare(engine, now, stored([members(a="0")], EMAIL))
    assert one.digest != two.digest


# --- duplicates ----------------------------------------------------------------------------------

WAS = members(unchanged="u@x.io", updated="old@x.io")
NOW = members(unchanged="u@x.io", updated="new@x.io", entered="e@x.io")


@pytest.mark.parametrize("twice", ["unchanged", "updated", "entered"])
@pytest.mark.parametrize("previous", [None, stored([WAS], EMAIL)], ids=["first", "later"])
def test_equal_duplicates_are_counted_and_change_nothing(
    engine: Engine, previous: Membership | None, twice: str
) -> None:
    ids = [*NOW, twice, twice]
    rows = {"user_id": ids, "email": [NOW[user]["email"] for user in ids]}
    found = compare(engine, rows, previous)
    assert found.refused == Refused(rows=5, duplicates=2)
    assert found.members == NOW
    assert found.changes == differences(WAS if previous else {}, NOW)


@pytest.mark.parametrize("user", ["unchanged", "updated", "entered"])
@pytest.mark.parametrize("previous", [None, stored([WAS], EMAIL)], ids=["first", "later"])
@pytest.mark.parametrize("others", [["zz", None], [None, "zz"], ["zz", "zzz"]])
def test_of_unequal_duplicates_the_smallest_is_kept(
    engine: Engine, previous: Membership | None, user: str, others: list[str | None]
) -> None:
    """NULL is the largest, so that a value is kept rather than none."""
    ids = [user, *NOW, user]
    values = [others[0], *(row["email"] for row in NOW.values()), others[1]]
    found = compare(engine, {"user_id": ids, "email": values}, previous)
    assert found.refused == Refused(rows=5, duplicates=2)
    assert found.members == NOW
    assert found.changes == differences(WAS if previous else {}, NOW)


@pytest.mark.parametrize("user", ["unchanged", "updated", "entered"])
@pytest.mark.parametrize("previous", [None, stored([WAS], EMAIL)], ids=["first", "later"])
@pytest.mark.parametrize("also", [False, True], ids=["alone", "among other duplicates"])
def test_a_good_row_is_kept_rather_than_a_refused_one(
    engine: Engine, previous: Membership | None, user: str, also: bool
) -> None:
    """The refused one is counted as that, and not as a duplicate as well."""
    columns = {"email": STRING, "score": FLOAT64}
    was = {name: row | {"score": 1.0} for name, row in WAS.items()}
    now = {name: row | {"score": 1.0} for name, row in NOW.items()}
    ids = [*now, user, *(["entered"] if also else [])]
    rows = {
        "user_id": ids,
        "email": [*(now[name]["email"] for name in now), "", *(["e@x.io"] if also else [])],
        "score": [1.0, 1.0, 1.0, float("nan"), *([1.0] if also else [])],
    }
    found = compare(engine, rows, stored([was], columns) if previous else None)
    assert found.refused.total == 1
    assert found.refused.duplicates == also
    assert found.members == now
    assert found.changes == differences(was if previous else {}, now)


def test_two_refused_rows_keep_the_member_once(engine: Engine) -> None:
    was = {"a": {"score": 1.0}, "b": {"score": 2.0}}
    rows = {"user_id": ["a", "a", "b", "new", "new"], "score": [float("inf")] * 2 + [2.0, *NANS]}
    found = compare(engine, rows, stored([was], {"score": FLOAT64}))
    assert (found.refused.total, found.refused.duplicates) == (4, 0)
    assert found.counts == Counts(previous=2, entered=0, exited=0, updated=0, members=2)
    assert found.members == was


def test_which_duplicate_is_kept_does_not_depend_on_the_order_of_columns(engine: Engine) -> None:
    one = {"user_id": ["a", "a"], "x": [1, 2], "y": [2, 1]}
    two = {"user_id": ["a", "a"], "y": [1, 2], "x": [2, 1]}
    kept = {"a": {"x": 1, "y": 2}}
    assert compare(engine, one).members == kept
    assert compare(engine, two).members == kept


def test_the_smallest_is_found_in_the_type_that_is_stored(engine: Engine) -> None:
    """As text 10 is before 9; tomorrow's sniffing must not choose another row."""
    previous = stored([{"a": {"x": "10"}}], {"x": STRING})
    for values in ([9, 10], ["9", "10"]):
        found = compare(engine, {"user_id": ["a", "a"], "x": values}, previous)
        assert found.counts.updated == 0


def test_rows_without_a_usable_id_are_no_duplicates(engine: Engine) -> None:
    rows = {"user_id": [None, None, "", "", "a", "a"]}
    found = compare(engine, rows)
    assert found.refused.duplicates == 1
    assert found.refused.total == 4
    assert found.counts.members == 1


# --- refused ids ---------------------------------------------------------------------------------

MISSING = "user_id is missing"
EMPTY = "user_id is empty or white space"
PADDED = "user_id starts or ends with white space"
LONG = "user_id is over 255 characters"
CONTROL = "user_id holds control characters"
NOTHING = "user_id is a word for nothing (null, NaN, None, undefined)"
FLOAT = "user_id looks like a float"

REFUSED_IDS: list[tuple[str, str | None]] = [
    (MISSING, None),
    *((EMPTY, user) for user in ("", " ", "   ", "\t", "\r\n", "\u00a0", "\u3000 ")),
    *((PADDED, user) for user in (" a", "a ", "\u00a0a", "a\u2003", "é ")),
    *((LONG, user) for user in ("x" * 256, "é" * 256, "😀" * 256, "1." + "0" * 256)),
    *((CONTROL, user) for user in ("a\x00b", "\x00", "a\x1f", "a\tb", "a\nb", "\x7fa", "a\x85b")),
    *((NOTHING, user) for user in ("null", "NULL", "Null", "nan", "NaN", "NAN", "None", "none")),
    *((NOTHING, user) for user in ("undefined", "Undefined", "UNDEFINED")),
    *((FLOAT, user) for user in ("1.5", "-1.5", "+1.5", "0.0", "1.", ".5", "1.23E+15", "1.0e5")),
    *((FLOAT, user) for user in ("1E+15", "1e-7", "-1e+15", "1234567890123.0")),
]
GOOD_IDS = [
    *("1234", "12e45", "1E15", "00012", "-5", "1.2.3", "1.5kg", "e5", "1e+", "v1.5"),
    *("nullable", "a null", "nobody", "NaNa", "a b", "a@x.io", "{1}", "'--", '"', "\\x00", "%"),
    *("é", "文", "😀", "a\u00a0b", "x" * 255, "é" * 255, "😀" * 255),
]


@pytest.mark.parametrize(("why", "user"), REFUSED_IDS, ids=[ascii(u)[:20] for _, u in REFUSED_IDS])
def test_an_id_that_cannot_be_one_is_refused_with_the_reason(
    engine: Engine, why: str, user: str | None
) -> None:
    found = compare(engine, {"user_id": pa.array([user, "good"], pa.string())})
    assert found.refused == Refused(rows=2, by_reason={why: 1})
    assert list(found.members) == ["good"]


def test_ids_that_only_look_odd_are_accepted(engine: Engine) -> None:
    found = compare(engine, {"user_id": GOOD_IDS})
    assert found.refused == Refused(rows=len(GOOD_IDS))
    assert set(found.members) == set(GOOD_IDS)


def test_refused_ids_are_counted_by_reason_and_never_become_members(engine: Engine) -> None:
    ids = [user for _, user in REFUSED_IDS] + GOOD_IDS
    found = compare(engine, {"user_id": pa.array(ids, pa.string())}, stored([{"1234": {}}], {}))
    reasons = [why for why, _ in REFUSED_IDS]
    assert found.refused.by_reason == {why: reasons.count(why) for why in set(reasons)}
    assert found.refused.rows == len(ids)
    assert found.counts.entered == len(GOOD_IDS) - 1


def test_a_member_whose_id_is_now_refused_has_left(engine: Engine) -> None:
    found = compare(engine, {"user_id": ["a "]}, stored([{"a": {}}], {}))
    assert found.counts.exited == 1


# --- refused rows with a usable id (P10) ---------------------------------------------------------

NANS = [float("nan"), float("-inf")]
UNUSABLE = {
    "NaN": (FLOAT64, pa.array([1.0, float("nan")])),
    "infinity": (FLOAT64, pa.array([1.0, float("inf")])),
    "minus infinity, single precision": (FLOAT64, pa.array([1.0, float("-inf")], pa.float32())),
    "over 64 bits": (INT64, pa.array([1, 2**63], pa.uint64())),
    "over 64 bits, as a decimal": (
        INT64,
        pa.array([Decimal(1), Decimal(2**63)], pa.decimal128(38, 0)),
    ),
    "under 64 bits": (INT64, pa.array([Decimal(1), Decimal(-(2**63) - 1)], pa.decimal128(38, 0))),
}


@pytest.mark.parametrize(("type_", "values"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_member_whose_row_is_refused_stays_as_it_was(
    engine: Engine, type_: ColumnType, values: pa.Array
) -> None:
    one = 1.0 if type_ is FLOAT64 else 1
    was: Members = {
        "fine": {"email": "f@x.io", "x": one},
        "sick": {"email": "old@x.io", "x": one * 5},
        "gone": {"email": None, "x": None},
    }
    now = {"fine": was["fine"], "sick": was["sick"]}
    rows = {
        "user_id": ["fine", "sick", "new"],
        "email": ["f@x.io", "new@x.io", SECRET],
        "x": pa.concat_arrays([values, values[1:]]),
    }
    found = compare(engine, rows, stored([was], {"email": STRING, "x": type_}))
    reason = "x is not a number that can travel (NaN, Inf, too large)"
    assert found.refused == Refused(rows=3, by_reason={reason: 2})
    assert found.counts == Counts(previous=3, entered=0, exited=1, updated=0, members=2)
    assert found.changes == differences(was, now)
    assert found.members == now


def test_a_refused_row_does_not_enter_at_first(engine: Engine) -> None:
    found = compare(engine, {"user_id": ["a", "b"], "x": [1.0, float("nan")]})
    assert found.refused.total == 1
    assert found.members == {"a": {"x": 1.0}}
    assert [change.user_id for change in found.changes] == ["a"]


def test_a_refused_row_keeps_its_member_when_the_columns_change(engine: Engine) -> None:
    """Stored anew like everyone: the old value where there is one, else none."""
    was = {"a": {"old": "1", "x": 1.0}, "b": {"old": "2", "x": 2.0}}
    rows = {"user_id": ["a", "b"], "x": [5.0, float("nan")], "new": [True, True]}
    found = compare(engine, rows, stored([was], {"old": STRING, "x": FLOAT64}))
    assert found.members == {"a": {"x": 5.0, "new": True}, "b": {"x": 2.0, "new": None}}
    assert found.counts == Counts(previous=2, entered=0, exited=0, updated=2, members=2)


def test_whole_numbers_up_to_64_bits_are_exact(engine: Engine) -> None:
    ends = [-(2**63), 2**63 - 1, 2**53 + 1, None]
    for kind in (pa.int64(), pa.decimal128(38, 0)):
        values = [v if v is None or kind == pa.int64() else Decimal(v) for v in ends]
        found = compare(engine, {"user_id": list("abcd"), "x": pa.array(values, kind)})
        assert found.refused.total == 0
        assert [row["x"] for row in found.members.values()] == ends


def test_a_hugeint_of_duckdb_that_fits_is_a_whole_number(
    engine: Engine, instance: Instance
) -> None:
    sql = "SELECT 'a' AS user_id, sum(n) AS total FROM range(5) t(n)"
    found = compare(engine, instance.cursor().sql(sql).to_arrow_reader(10))
    assert found.columns == {"total": INT64}
    assert found.members == {"a": {"total": 10}}


# --- the user_id column --------------------------------------------------------------------------


def test_without_user_id_the_columns_there_are_are_named(engine: Engine) -> None:
    error = refusal(engine, {"uid": ["a"], "email": ["a@x.io"]})
    assert str(error) == "the query gives no column user_id, only uid, email"


@pytest.mark.parametrize("names", [["user_id", "user_id"], ["user_id", "USER_ID"], ["x", "X"]])
def test_a_column_that_is_there_twice_is_refused(engine: Engine, names: list[str]) -> None:
    arrays = [pa.array(["a"]), *(pa.array(["a"]) for _ in names)]
    table = pa.Table.from_arrays(arrays[: len(names)], names=names)
    error = refusal(engine, table)
    assert str(error) == f"the query gives the column {names[0]} more than once"


WRONG_IDS = {
    "double": (pa.array([1.5]), "user_id is a double, and a float does not hold an id exactly"),
    "float": (pa.array([1.5], pa.float32()), "user_id is a float, and a float does not hold"),
    "decimal with scale": (
        pa.array([Decimal("1.50")], pa.decimal128(10, 2)),
        "user_id is a decimal128(10, 2), and a float does not hold",
    ),
    "list": (pa.array([["a"]]), "user_id is a list<item: string>, not text"),
    "bool": (pa.array([True]), "user_id is a bool, not text"),
    "binary": (pa.array([b"a"]), "user_id is a binary, not text"),
    "date": (pa.array([date(2026, 1, 1)]), "user_id is a date32[day], not text"),
}


@pytest.mark.parametrize(("ids", "says"), WRONG_IDS.values(), ids=WRONG_IDS)
def test_a_user_id_that_is_not_text_is_refused(engine: Engine, ids: pa.Array, says: str) -> None:
    error = refusal(engine, {"user_id": ids})
    assert str(error).startswith(says)
    assert str(error.hint).startswith("CAST(user_id AS ")


WHOLE_IDS = {
    "int64": pa.array([7, None, -(2**63)]),
    "uint8": pa.array([7, None, 255], pa.uint8()),
    "uint64": pa.array([7, None, 2**64 - 1], pa.uint64()),
    "decimal": pa.array([Decimal(7), None, Decimal(10**37)], pa.decimal128(38, 0)),
    "text": pa.array(["7", None, "007"]),
    "large text": pa.array(["7", None, "007"], pa.large_string()),
    "text view": pa.array(["7", None, "007"], pa.string_view()),
    "dictionary": pa.array(["7", None, "007"]).dictionary_encode(),
}


@pytest.mark.parametrize("ids", WHOLE_IDS.values(), ids=WHOLE_IDS)
def test_whole_ids_become_text(engine: Engine, ids: pa.Array) -> None:
    found = compare(engine, {"user_id": ids})
    assert set(found.members) == {str(user) for user in ids.to_pylist() if user is not None}
    assert found.refused.by_reason == {MISSING: 1}


def test_whole_ids_of_today_are_the_text_ids_of_yesterday(engine: Engine) -> None:
    found = compare(engine, {"user_id": [10, 9]}, stored([{"9": {}, "10": {}}], {}))
    assert not found.counts.changed


def test_ids_that_are_all_missing_are_refused_rows(engine: Engine) -> None:
    found = compare(engine, {"user_id": pa.nulls(3)}, stored([{"a": {}}], {}))
    assert found.refused.by_reason == {MISSING: 3}


# --- carried columns that cannot be used ---------------------------------------------------------


@pytest.mark.parametrize("name", ["email", "Email", "EMAIL"])
@pytest.mark.parametrize("values", [[1], [1.5], [True], [datetime(2026, 1, 1, tzinfo=UTC)]])
def test_an_email_that_is_not_text_is_refused(
    engine: Engine, name: str, values: list[object]
) -> None:
    assert str(refusal(engine, {"user_id": ["a"], name: values})).startswith("the column email is")


def test_an_email_column_without_any_value_is_text(engine: Engine) -> None:
    assert compare(engine, {"user_id": ["a"], "email": pa.nulls(1)}).columns == EMAIL


@pytest.mark.parametrize("name", [KEY, KEY.upper()])
def test_a_column_with_the_name_of_the_trait_key_is_refused(engine: Engine, name: str) -> None:
    assert KEY in str(refusal(engine, {"user_id": ["a"], name: [True]}))


def test_a_column_without_a_name_is_refused(engine: Engine) -> None:
    assert str(refusal(engine, {"user_id": ["a"], "": [1]})) == (
        "the query gives a column without a name"
    )


def test_so_many_columns_that_segment_would_refuse_the_call(engine: Engine) -> None:
    columns = {f"n{i}": [i] for i in range(299)}
    error = refusal(engine, {"user_id": ["a"], **columns})
    assert str(error) == "the query gives 299 columns beside user_id (limit 298)"
    del columns["n0"]
    found = compare(engine, {"user_id": ["a"], **columns})
    assert found.members == {"a": {name: value for name, (value,) in columns.items()}}


NESTED = {
    "list": pa.array([[1]]),
    "struct": pa.array([{"a": 1}]),
    "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    "binary": pa.array([b"a"]),
    "duration": pa.array([1], pa.duration("s")),
    "float16": pa.array([1.0], pa.float16()),
    "decimal256": pa.array([Decimal(1)], pa.decimal256(50, 0)),
}


@pytest.mark.parametrize("values", NESTED.values(), ids=NESTED)
def test_a_type_that_cannot_be_a_trait_is_refused(engine: Engine, values: pa.Array) -> None:
    error = refusal(engine, {"user_id": ["a"], "odd": values})
    assert str(error) == f"the column odd is a {values.type}, which cannot travel as a trait"
    assert error.hint == "CAST(odd AS VARCHAR), or leave it out"


# --- how values travel ---------------------------------------------------------------------------

BERLIN = pa.timestamp("us", "Europe/Berlin")
MOMENT = datetime(2026, 7, 1, 10, 30, tzinfo=UTC)
TRAVELS: dict[str, tuple[pa.Array, ColumnType, object]] = {
    "without a zone": (pa.array([0], pa.timestamp("us")), STRING, "1970-01-01T00:00:00Z"),
    "in seconds": (pa.array([MOMENT], pa.timestamp("s", "UTC")), STRING, "2026-07-01T10:30:00Z"),
    "with a zone": (pa.array([MOMENT], BERLIN), STRING, "2026-07-01T10:30:00Z"),
    "with a fraction": (
        pa.array([MOMENT.replace(microsecond=1500)], BERLIN),
        STRING,
        "2026-07-01T10:30:00.001500Z",
    ),
    "in nanoseconds": (
        pa.array([1_500_000_000], pa.timestamp("ns")),
        STRING,
        "1970-01-01T00:00:01.500000Z",
    ),
    "date": (pa.array([date(2026, 7, 1)]), STRING, "2026-07-01"),
    "date in milliseconds": (pa.array([date(2026, 7, 1)], pa.date64()), STRING, "2026-07-01"),
    "time": (pa.array([time(10, 30, 1)]), STRING, "10:30:01"),
    "decimal": (pa.array([Decimal("12.50")]), FLOAT64, 12.5),
    "whole decimal": (pa.array([Decimal(12)], pa.decimal128(10, 0)), INT64, 12),
    "single precision": (pa.array([0.5], pa.float32()), FLOAT64, 0.5),
    "small": (pa.array([-5], pa.int8()), INT64, -5),
    "uint64": (pa.array([2**63 - 1], pa.uint64()), INT64, 2**63 - 1),
    "bool": (pa.array([False]), BOOL, False),
    "dictionary": (pa.array(["gold"]).dictionary_encode(), STRING, "gold"),
    "large text": (pa.array(["x" * 70_000], pa.large_string()), STRING, "x" * 70_000),
    "empty text": (pa.array([""]), STRING, ""),
    "nothing at all": (pa.nulls(1), STRING, None),
}


@pytest.mark.parametrize(("values", "type_", "value"), TRAVELS.values(), ids=TRAVELS)
def test_each_type_becomes_one_of_four(
    engine: Engine, values: pa.Array, type_: ColumnType, value: object
) -> None:
    both = pa.concat_arrays([values, pa.nulls(1, values.type)])
    found = compare(engine, {"user_id": ["a", "b"], "x": both})
    assert found.columns == {"x": type_}
    assert found.members == {"a": {"x": value}, "b": {"x": None}}


# --- agreement with what is stored ---------------------------------------------------------------


def test_swapped_columns_update_nobody(engine: Engine) -> None:
    columns = {"x": STRING, "y": STRING, "n": INT64}
    was: Members = {"a": {"x": "1", "y": "2", "n": 3}, "b": {"x": None, "y": "", "n": None}}
    found = compare(engine, rows_of(was, ["n", "y", "x"]), stored([was], columns))
    assert not found.counts.changed
    assert list(found.columns.items()) == list(columns.items())
    assert found.members == was


AGREES: dict[str, tuple[ColumnType, list[object], pa.Array]] = {
    "whole numbers read as text": (INT64, [1, -20, None], pa.array(["1", "-20", None])),
    "numbers read as text": (FLOAT64, [1.5, -0.25, None], pa.array(["1.5", "-0.25", None])),
    "truth read as text": (BOOL, [True, False, None], pa.array(["true", "false", None])),
    "text read as whole numbers": (STRING, ["1", "-20", None], pa.array([1, -20, None])),
    "text read as numbers": (STRING, ["1.5", "-0.25", None], pa.array([1.5, -0.25, None])),
    "text read as truth": (STRING, ["true", "false", None], pa.array([True, False, None])),
    "whole numbers read as numbers": (INT64, [1, -20, None], pa.array([1.0, -20.0, None])),
    "numbers read as whole numbers": (FLOAT64, [1.0, -20.0, None], pa.array([1, -20, None])),
    "whole numbers without any today": (INT64, [None, None, None], pa.nulls(3)),
    "numbers without any today": (FLOAT64, [None, None, None], pa.nulls(3)),
    "truth without any today": (BOOL, [None, None, None], pa.nulls(3)),
}


@pytest.mark.parametrize(("type_", "values", "today"), AGREES.values(), ids=AGREES)
def test_the_same_values_in_another_type_update_nobody(
    engine: Engine, type_: ColumnType, values: list[object], today: pa.Array
) -> None:
    was = {user: {"x": value} for user, value in zip("abc", values, strict=True)}
    found = compare(engine, {"user_id": list("abc"), "x": today}, stored([was], {"x": type_}))
    assert found.columns == {"x": type_}
    assert not found.counts.changed
    assert found.members == was


def test_an_update_is_found_in_the_stored_type(engine: Engine) -> None:
    was = {"a": {"x": 1}, "b": {"x": 2}}
    found = compare(engine, {"user_id": ["a", "b"], "x": ["1", "3"]}, stored([was], {"x": INT64}))
    assert found.changes == [Change("b", {"x": 2}, {"x": 3})]


DIFFERS: dict[str, tuple[ColumnType, object, pa.Array, ColumnType]] = {
    "a word among whole numbers": (INT64, 7, pa.array(["7", "seven"]), STRING),
    "a leading zero": (INT64, 7, pa.array(["7", "007"]), STRING),
    "more than 64 bits as text": (INT64, 7, pa.array(["7", str(2**63)]), STRING),
    "a fraction among whole numbers": (INT64, 7, pa.array([7.0, 7.5]), FLOAT64),
    "a whole number no float holds": (FLOAT64, 7.0, pa.array([7, 2**53 + 1]), INT64),
    "a trailing zero": (FLOAT64, 7.5, pa.array(["7.5", "7.50"]), STRING),
    "a word among truth": (BOOL, True, pa.array(["true", "yes"]), STRING),
    "truth instead of whole numbers": (INT64, 1, pa.array([True, False]), BOOL),
    "whole numbers instead of truth": (BOOL, True, pa.array([1, 0]), INT64),
}


@pytest.mark.parametrize(("was", "value", "today", "is_"), DIFFERS.values(), ids=DIFFERS)
def test_a_type_that_no_longer_fits_changes_for_everyone(
    engine: Engine, was: ColumnType, value: object, today: pa.Array, is_: ColumnType
) -> None:
    previous = stored([{"a": {"x": value}, "b": {"x": value}}], {"x": was})
    found = compare(engine, {"user_id": ["a", "b"], "x": today}, previous)
    assert found.columns == {"x": is_}
    assert found.counts.updated == 2
    assert [row["x"] for row in found.members.values()] == today.to_pylist()


def test_refused_rows_do_not_decide_about_types(engine: Engine) -> None:
    was = {"a": {"x": 1, "y": 1.0}}
    rows = {"user_id": ["a", "b", ""], "x": ["1", "word", "word"], "y": [1.0, float("nan"), 1.0]}
    found = compare(engine, rows, stored([was], {"x": INT64, "y": FLOAT64}))
    assert found.columns == {"x": INT64, "y": FLOAT64}
    assert not found.counts.changed


# --- computed traits -----------------------------------------------------------------------------

TRAIT = Kind.COMPUTED_TRAIT
VALUES: Mapping[str, tuple[pa.Array, ColumnType, list[Any]]] = {
    "text": (pa.array(["gold", ""]), STRING, ["gold", ""]),
    "bool": (pa.array([True, False]), BOOL, [True, False]),
    "int": (pa.array([3, -1], pa.int8()), INT64, [3, -1]),
    "sum of integers": (pa.array([3, 2**40], pa.decimal128(38, 0)), INT64, [3, 2**40]),
    "float": (pa.array([0.5, 2.0]), FLOAT64, [0.5, 2.0]),
    "sum of amounts": (
        pa.array([Decimal("9.50"), None], pa.decimal128(38, 2)),
        FLOAT64,
        [9.5],
    ),
    "date": (pa.array([date(2026, 1, 31), None]), STRING, ["2026-01-31"]),
    "time": (
        pa.array([datetime(2026, 1, 31, 6, tzinfo=UTC), None]),
        STRING,
        ["2026-01-31T06:00:00Z"],
    ),
    "no values": (pa.array([None, None], pa.string()), STRING, []),
}


@pytest.mark.parametrize(("read", "type_", "values"), VALUES.values(), ids=VALUES)
def test_what_a_value_can_be(
    engine: Engine, read: pa.Array, type_: ColumnType, values: list[Any]
) -> None:
    found = compare(engine, {"user_id": ["a", "b"], "value": read}, kind=TRAIT)
    assert found.columns == {"value": type_}
    assert [row["value"] for row in found.members.values()] == values


def test_a_computed_trait_without_a_value(engine: Engine) -> None:
    rows = {"user_id": ["a"], "amount": [1], "values": [2]}
    error = refusal(engine, rows, kind=TRAIT)
    assert str(error) == "the query gives no column value, only user_id, amount, values"
    assert error.hint == "name what the computed trait is to be: SELECT user_id, … AS value"
    assert compare(engine, rows).columns == {"amount": INT64, "values": INT64}


def test_a_value_that_cannot_travel(engine: Engine) -> None:
    assert "column value is a list" in str(
        refusal(engine, {"user_id": ["a"], "value": [[1]]}, kind=TRAIT)
    )


def test_the_value_is_found_in_any_case(engine: Engine) -> None:
    """Warehouses give names in capitals."""
    found = compare(engine, {"USER_ID": ["a"], "VALUE": [1], "Plan": ["pro"]}, kind=TRAIT)
    assert found.members == {"a": {"value": 1, "Plan": "pro"}}
    assert list(compare(engine, {"user_id": ["a"], "VALUE": [1]}).columns) == ["VALUE"]


def test_one_without_a_value_is_no_member(engine: Engine) -> None:
    """So whoever loses it exits, and the guard counts that."""

    def rows(**values: int | None) -> dict[str, dict[str, Any]]:
        return {user: {"value": value} for user, value in values.items()}

    was, read = rows(a=1, b=2, c=3, d=4), rows(a=1, b=5, c=None, e=None, f=6)
    now = rows(a=1, b=5, f=6)
    found = compare(engine, rows_of(read, ["value"]), stored([was], {"value": INT64}), TRAIT)
    assert found.counts == Counts(previous=4, entered=1, exited=2, updated=1, members=3)
    assert found.changes == differences(was, now)
    assert found.members == now
    assert found.refused == Refused(rows=5)
    first = compare(engine, rows_of(read, ["value"]), kind=TRAIT)
    assert first.members == now


def test_several_rows_without_a_value_are_no_member_either(engine: Engine) -> None:
    rows = {"user_id": ["a", "b", "a"], "value": pa.array([None, 1, None])}
    assert compare(engine, rows, kind=TRAIT).members == {"b": {"value": 1}}


def test_a_value_that_is_no_number_keeps_the_member_as_it_was(engine: Engine) -> None:
    was = {"a": {"value": 1.5}}
    rows = {"user_id": ["a", "b"], "value": [float("nan"), float("inf")]}
    found = compare(engine, rows, stored([was], {"value": FLOAT64}), TRAIT)
    assert not found.counts.changed
    assert found.members == was
    assert found.refused.by_reason == {
        "value is not a number that can travel (NaN, Inf, too large)": 2
    }


@pytest.mark.parametrize("previous", [None, {"a": {"value": 1}}], ids=["first", "later"])
@pytest.mark.parametrize("values", [[1, 2], [1, None], [None, 1]], ids=str)
def test_two_values_for_one_user_fail_the_capture(
    engine: Engine, values: list[int | None], previous: Members | None
) -> None:
    rows = {"user_id": ["a", SECRET, "b", SECRET, "a"], "value": [1, values[0], 3, values[1], 1]}
    before = stored([previous], {"value": INT64}) if previous else None
    error = refusal(engine, rows, before, TRAIT)
    assert str(error) == "the query gives different values for the same user_id (users: 1)"
    assert SECRET not in "".join(traceback.format_exception(error))
    assert compare(engine, rows).refused.duplicates == 2


@pytest.mark.parametrize("previous", [None, {"a": {"value": 1}}], ids=["first", "later"])
def test_a_value_beside_none_is_found_though_the_counts_add_up(
    engine: Engine, previous: Members | None
) -> None:
    rows = {"user_id": ["a", "b", "a"], "value": pa.array([1, 2, None])}
    before = stored([previous], {"value": INT64}) if previous else None
    assert "(users: 1)" in str(refusal(engine, rows, before, TRAIT))


def test_equal_values_are_duplicates_like_any_other(engine: Engine) -> None:
    rows = {
        "user_id": ["a", "b", "a", "a"],
        "value": [1, 2, 1, 1],
        "plan": ["x", "y", "b", None],
    }
    found = compare(engine, rows, kind=TRAIT)
    assert found.members == {"a": {"value": 1, "plan": "b"}, "b": {"value": 2, "plan": "y"}}
    assert found.refused.duplicates == 2


def test_a_refused_row_is_no_second_value(engine: Engine) -> None:
    rows = {"user_id": ["a", "a"], "value": [1.0, float("nan")]}
    found = compare(engine, rows, kind=TRAIT)
    assert found.members == {"a": {"value": 1.0}}


def test_a_value_may_share_its_row_with_297_columns(engine: Engine) -> None:
    rows = {"user_id": ["a"], "value": [1], **{f"c{i}": [i] for i in range(297)}}
    assert len(compare(engine, rows, kind=TRAIT).columns) == 298
    refusal(engine, rows | {"one_more": [1]}, kind=TRAIT)


# --- columns that changed tell nobody ------------------------------------------------------------


def told(engine: Engine, rows: Rows, previous: Membership) -> list[str]:
    """Who is told when everything is told, read as delivery reads it."""
    with engine.compare(previous, reader(rows), reserved=KEY) as comparison:
        return [
            change.user_id
            for batch in comparison.changes()
            for change in chunk_rows.changed(batch)
            if domain.is_told(change, frozenset(Tell), Kind.AUDIENCE)
        ]


BORDERS: dict[str, tuple[Rows, Columns]] = {
    "added": ({"x": ["1", "2"], "y": [1.5, None]}, {"x": STRING, "y": FLOAT64}),
    "dropped": ({}, {}),
    "renamed": ({"z": ["1", "2"]}, {"z": STRING}),
    "renamed by case": ({"X": ["1", "2"]}, {"X": STRING}),
}


@pytest.mark.parametrize(("rows", "columns"), BORDERS.values(), ids=BORDERS)
def test_changed_columns_store_everyone_anew_and_tell_nobody(
    engine: Engine, rows: dict[str, list[object]], columns: Columns
) -> None:
    was = {"a": {"x": "1"}, "b": {"x": "2"}}
    previous = stored([{}, was], {"x": STRING})
    found = compare(engine, {"user_id": ["a", "b"], **rows}, previous)
    assert found.columns == columns
    assert found.counts == Counts(previous=2, entered=0, exited=0, updated=2, members=2)
    assert [change.before for change in found.changes] == list(was.values())
    assert [change.after for change in found.changes] == list(found.members.values())
    assert told(engine, {"user_id": ["a", "b"], **rows}, previous) == []


def test_beside_changed_columns_real_changes_are_told(engine: Engine) -> None:
    was = {"a": {"x": "1"}, "b": {"x": "2"}, "c": {"x": "3"}}
    rows = {"user_id": ["a", "b", "d"], "x": ["1", "two", "4"], "new": [1, 2, 3]}
    previous = stored([was], {"x": STRING})
    found = compare(engine, rows, previous)
    assert found.counts == Counts(previous=3, entered=1, exited=1, updated=2, members=3)
    assert told(engine, rows, previous) == ["b", "c", "d"]


@pytest.mark.parametrize(
    ("was", "value", "today"),
    [(INT64, 7, pa.array([7.0, 7.5])), (INT64, 7, pa.array(["7", "seven"]))],
    ids=["to float", "to text"],
)
def test_a_changed_type_tells_only_whose_value_changed(
    engine: Engine, was: ColumnType, value: object, today: pa.Array
) -> None:
    previous = stored([{"a": {"x": value}, "b": {"x": value}}], {"x": was})
    assert told(engine, {"user_id": ["a", "b"], "x": today}, previous) == ["b"]


# --- names of columns ----------------------------------------------------------------------------

NAMES = [
    *("before", "after", "after.x", "before.x", "x", "before.before"),
    *("c0", "c1", "p0", "u0", "u1", "bad", "kept", "changed", "refusal", "step", "net", "rows"),
    *(
        'a "quoted" name',
        "it's",
        "a.dotted.name",
        "two words",
        "SELECT",
        "日本",
        "{n}",
        "$now",
        "%",
    ),
    *("Case", "Ünï"),
]


def test_any_name_of_a_column_is_only_a_name(engine: Engine) -> None:
    columns: Columns = dict.fromkeys(NAMES, INT64)
    was = {user: {name: i for i, name in enumerate(NAMES)} for user in "abcd"}
    then = {**was, "b": was["b"] | {"after.x": -1}}
    now = {user: then[user] for user in "abc"} | {"e": was["a"]}
    now["a"] = was["a"] | {"c0": 100, "before": -1}
    found = compare(engine, rows_of(now, NAMES), stored([was, then], columns))
    assert found.columns == columns
    assert found.changes == differences(then, now)
    assert found.members == now


def test_any_name_can_be_where_a_refused_row_is_counted(engine: Engine) -> None:
    rows = {"user_id": ["a"], **{name: [float("nan")] for name in NAMES}}
    assert compare(engine, rows).refused.by_reason == {
        f"{NAMES[0]} is not a number that can travel (NaN, Inf, too large)": 1
    }


def test_the_id_column_may_be_written_in_any_case(engine: Engine) -> None:
    assert compare(engine, {"USER_ID": ["a"], "x": [1]}).members == {"a": {"x": 1}}


def test_the_id_column_may_stand_anywhere(engine: Engine) -> None:
    assert compare(engine, {"x": [1], "user_id": ["a"]}).members == {"a": {"x": 1}}


# --- reads that fail -----------------------------------------------------------------------------

SCHEMA = pa.schema({"user_id": pa.string(), "email": pa.string()})


def breaking(error: BaseException, after: int = 3) -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        for number in range(after):
            ids = [f"{SECRET}{number}-{i}" for i in range(1_000)]
            yield pa.record_batch({"user_id": ids, "email": ids}, schema=SCHEMA)
        raise error

    return pa.RecordBatchReader.from_batches(SCHEMA, batches())


@pytest.mark.parametrize("after", [0, 3, 200])
@pytest.mark.parametrize(
    "error",
    [SourceFailed("cut"), SourceRefused("bad", hint="mend it"), KeyboardInterrupt(), ValueError()],
    ids=lambda error: type(error).__name__,
)
def test_what_the_reader_raises_comes_through_unchanged(
    engine: Engine, error: BaseException, after: int
) -> None:
    with pytest.raises(type(error)) as caught:
        compare(engine, breaking(error, after), stored([members(a="1")], EMAIL))
    assert caught.value is error
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    found = compare(engine, rows_of(members(a="2")), stored([members(a="1")], EMAIL))
    assert found.counts.updated == 1


def test_what_the_stored_membership_raises_comes_through_unchanged(engine: Engine) -> None:
    error = RuntimeError("a chunk is damaged")
    whole = stored([members(a="1"), members(a="2")], EMAIL)

    def broken(scan: Callable[[], Batches]) -> Iterator[pa.RecordBatch]:
        yield from scan()
        raise error

    for membership in (
        replace(whole, base=lambda: broken(whole.base)),
        replace(whole, changes=[lambda: broken(whole.changes[0])]),
    ):
        with pytest.raises(RuntimeError) as caught:
            compare(engine, rows_of(members(a="1")), membership)
        assert caught.value is error


def test_a_stored_membership_that_does_not_add_up_is_not_compared(engine: Engine) -> None:
    short = replace(stored([members(a="1", b="2")], EMAIL), members=3)
    with pytest.raises(SourceFailed, match="does not add up"):
        compare(engine, rows_of(members(a="1")), short)


def test_an_error_of_duckdb_shows_nobodys_row(engine: Engine) -> None:
    text = f"Could not convert string '{SECRET}' to INT64"
    with pytest.raises(SourceFailed) as caught:
        compare(engine, breaking(duckdb.ConversionException(text)))
    assert str(caught.value) == "the comparison failed in DuckDB (ConversionException)"
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_value_that_duckdb_cannot_take_over_ends_the_comparison(engine: Engine) -> None:
    with pytest.raises(SourceFailed, match="ConversionException"):
        compare(engine, {"user_id": ["a"], "x": pa.array([2**62], pa.timestamp("s"))})


def test_an_error_while_rows_are_given_out_shows_nobodys_row(tmp_path: Path) -> None:
    """Arrow then raises an error of its own, with DuckDB's text."""
    late = f"CASE WHEN i = 900_000 THEN error('{SECRET}') ELSE 'a' END"
    con = open_instance(memory_limit=300_000_000, threads=1, spill=tmp_path)  # more run ahead
    rows = Session(con.cursor()).stream(
        f"SELECT {late} AS x FROM range(1_000_000) t(i)", pa.schema({"x": pa.string()})
    )
    assert next(rows).num_rows
    with pytest.raises(SourceFailed, match=r"\(OSError\)$") as caught:
        list(rows)
    con.close()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[Engine]:
    """An engine with little memory, and as little room to spill."""
    con = open_instance(memory_limit=32_000_000, threads=1, spill=tmp_path)
    con.cursor().execute("SET max_temp_directory_size = '1MiB'").fetchall()
    yield DuckDBEngine(con.cursor)
    con.close()


def large(rows: int, width: int) -> pa.Table:
    return pa.table({"user_id": [f"{i * 7_919 % rows:0{width}}" for i in range(rows)]})


def no_room(run: Callable[[], object]) -> None:
    with pytest.raises(SourceFailed) as caught:
        run()
    assert str(caught.value) == "the comparison does not fit in memory and spill space"
    assert "[engine] memory_limit" in str(caught.value.hint)


def test_no_room_to_read(cramped: Engine) -> None:
    no_room(lambda: compare(cramped, large(200_000, width=200)))


def test_no_room_to_give_out_what_was_found(cramped: Engine) -> None:
    with cramped.compare(None, reader(large(300_000, width=35)), reserved=KEY) as comparison:
        no_room(lambda: list(comparison.members()))


# --- memory --------------------------------------------------------------------------------------

ONE_MILLION = """
import sys
from pathlib import Path
from audience_sync.domain.audience import ColumnType
from audience_sync.engines.duckdb import DuckDBEngine
from audience_sync.engines.instance import Instance, open_instance
from audience_sync.pipeline.ports.reading import Membership

spill = Path(sys.argv[1])
con = open_instance(memory_limit=128_000_000, threads=2, spill=spill)
ROWS = '''SELECT printf('user-%032d', i) AS user_id, 'someone-' || i || CASE WHEN i % 100 = 0
    THEN '{mark}' ELSE '' END || '@example.com' AS email FROM range({first}, {last}) t(i)'''

def read(first, last, mark):
    sql = ROWS.format(first=first, last=last, mark=mark)
    return con.cursor().sql(sql).to_arrow_reader(65_536)

previous = Membership(
    columns={"email": ColumnType.STRING},
    members=1_000_000,
    base=lambda: read(0, 1_000_000, "-old"),
)
now = read(5_000, 1_005_000, "-new")
with DuckDBEngine(con.cursor).compare(previous, now, reserved="k") as comparison:
    spilled = sum(file.stat().st_size for file in spill.rglob("*"))
    counts = comparison.counts
    rows = sum(batch.num_rows for batch in comparison.changes())
assert (counts.entered, counts.exited, counts.updated) == (5_000, 5_000, 9_950), counts
assert rows == 19_950, rows
assert spilled > 0, "nothing was spilled: the test shows nothing"
"""


def test_what_does_not_fit_in_memory_is_spilled(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ONE_MILLION, str(tmp_path / "spill")],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr


class TestForgotten:
    """People who asked to be forgotten are left out, as if the source did not have them."""

    SALT = "it's salt"

    def compared(
        self, engine: Engine, rows: Rows, previous: Membership | None, *user_ids: str
    ) -> Found:
        references = [reference(self.SALT, user_id) for user_id in user_ids]
        forgotten = Forgotten(salt=self.SALT, references=references)
        with engine.compare(previous, reader(rows), reserved=KEY, forgotten=forgotten) as found:
            return Found(
                counts=found.counts,
                refused=found.refused,
                columns=found.columns,
                digest=found.digest,
                changes=found_changes(found),
                members=found_members(found),
            )

    def test_they_do_not_enter(self, engine: Engine) -> None:
        ids = ["a", "é𝔸 x", "c", "nan", "a" * 256, None]
        rows = {"user_id": pa.array(ids), "email": pa.array(["1", "2", "3", "4", "5", "6"])}
        found = self.compared(engine, rows, None, "é𝔸 x", "a", "nobody")
        assert list(found.members) == ["c"]
        assert found.refused.by_reason[REASON] == 2
        assert found.refused.rows == 6
        assert found.refused.total == 3

    def test_the_plan_is_that_of_a_source_without_them(self, engine: Engine) -> None:
        was = members(a="1", b="2")
        now = members(a="x", c="3", d="4")
        without = {user_id: now[user_id] for user_id in ("a", "c")}
        found = self.compared(engine, rows_of(now), stored([was], EMAIL), "d")
        expected = compare(engine, rows_of(without), stored([was], EMAIL))
        assert replace(found, refused=expected.refused) == expected
        assert "d" not in found.members

    def test_they_are_not_kept_as_they_were_either(self, engine: Engine) -> None:
        """Who is in the log by mistake leaves it: a refused row would keep a member."""
        was = {"a": {"n": 1}, "b": {"n": 1}}
        rows = {"user_id": ["a", "b"], "n": pa.array([1.0, float("nan")])}
        found = self.compared(engine, rows, stored([was], {"n": INT64}), "b")
        assert list(found.members) == ["a"]
        assert found.counts.exited == 1

    def test_their_duplicates_are_none(self, engine: Engine) -> None:
        rows = {"user_id": ["a", "b", "b", "a"], "email": ["1", "2", "3", "1"]}
        found = self.compared(engine, rows, None, "b")
        assert (found.refused.duplicates, found.refused.by_reason) == (1, {REASON: 2})
        assert list(found.members) == ["a"]

    def test_their_values_decide_no_type(self, engine: Engine) -> None:
        was = {"a": {"n": 1}}
        rows = {"user_id": ["a", "b"], "n": pa.array(["1", "many"])}
        found = self.compared(engine, rows, stored([was], {"n": INT64}), "b")
        assert found.columns == {"n": INT64}
        assert found.changes == []
