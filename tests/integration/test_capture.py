"""Capture: real files, the real engine, a real store. What is stored, held, or left as it was."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import func, select

from audience_sync.domain.audience import Audience, AudienceKey, Row, Seq
from audience_sync.domain.guard import Limits
from audience_sync.domain.schedule import Every
from audience_sync.engines.duckdb import DuckDBEngine
from audience_sync.engines.instance import open_instance
from audience_sync.errors import (
    LeaseTaken,
    SourceFailed,
    SourceRefused,
    SourceReplaced,
    StoreFailed,
    UsageError,
)
from audience_sync.pipeline import capture as pipeline
from audience_sync.pipeline.capture import Examined
from audience_sync.pipeline.captures import CaptureOutcome, Captures, Configured
from audience_sync.pipeline.ports.reading import Source
from audience_sync.sources.files import FilesSource
from audience_sync.store import chunk_rows, migrate, schema
from audience_sync.store.engine import Database
from audience_sync.store.ids import destination_id, known_audience_id
from audience_sync.store.leases import Leases
from audience_sync.store.pair import Pair
from audience_sync.store.resyncs import request_resync
from audience_sync.store.snapshots import Snapshots

KEY = AudienceKey("vip")
START = datetime(2026, 1, 1, 6, tzinfo=UTC)
HOUR = timedelta(hours=1)
THREE_HOURS = Every(3 * HOUR, 3 * HOUR)
AUDIENCE = Audience(
    key=KEY, name="VIP", source="shop", query="SELECT * FROM 'vip.csv'", destinations=()
)

Members = Mapping[str, Mapping[str, Any]]


def people(first: int, last: int, **columns: object) -> dict[str, dict[str, Any]]:
    """Users first..last-1."""
    return {f"u{number:05}": {"plan": "free", **columns} for number in range(first, last)}


class Shop:
    """One audience over one CSV file, with its store; each capture is an hour after the last."""

    def __init__(self, folder: Path, url: str, connect: Callable[[], Any]) -> None:
        self.folder = folder
        self.database = Database(url)
        migrate.upgrade(self.database)
        self.snapshots = Snapshots(self.database, lambda: START)
        self.leases = Leases(self.database)
        self.engine = DuckDBEngine(connect)
        self.source: Source = FilesSource(root=folder, connect=connect)
        self.limits = Limits()
        self.now = START

    def write(self, members: Members, *, seed: int | None = None, more: str = "") -> None:
        users = list(members)
        if seed is not None:
            random.Random(seed).shuffle(users)
        columns = list(next(iter(members.values()), {"plan": None}))
        lines = [",".join(["user_id", *columns])]
        lines += [",".join([user, *(str(members[user][c]) for c in columns)]) for user in users]
        (self.folder / "vip.csv").write_text("\n".join(lines) + "\n" + more)

    def capture(self, members: Members | None = None, **how: Any) -> CaptureOutcome:
        if members is not None:
            self.write(members)
        self.now += HOUR
        return self.captures.capture(self.configured, self.now, **how)

    @property
    def captures(self) -> Captures:
        return Captures(
            snapshots=self.snapshots,
            engine=self.engine,
            leases=self.leases,
            clock=lambda: START,
            draw=lambda: 0.5,
        )

    @property
    def configured(self) -> Configured:
        return Configured(
            audience=AUDIENCE, source=self.source, limits=self.limits, cadence=THREE_HOURS
        )

    def examine(self, at: datetime | None = None) -> AbstractContextManager[Examined]:
        return pipeline.examine(
            AUDIENCE,
            source=self.source,
            engine=self.engine,
            snapshots=self.snapshots,
            limits=self.limits,
            cycle_time=at or self.now + HOUR,
        )

    def plan(self) -> str:
        with self.examine() as examined:
            return examined.plan_id

    # What the store holds

    def rows(self, table: str) -> list[dict[str, Any]]:
        found = schema.metadata.tables[table]
        with self.database.read() as connection:
            rows = connection.execute(select(found).order_by(*found.primary_key.columns))
            return [dict(row._mapping) for row in rows]

    def seq(self) -> int | None:
        current = self.snapshots.current(KEY)
        return current.seq if current else None

    def members(self, seq: int | None = None) -> dict[str, Row]:
        """Read as delivery reads them: a base, and changes over it."""
        membership = self.snapshots.membership(KEY, Seq(seq or self.seq() or 0))
        base = (change for batch in membership.base() for change in chunk_rows.entered(batch))
        members = {change.user_id: change.after for change in base}
        for scan in membership.changes:
            for batch in scan():
                for change in chunk_rows.changed(batch):
                    assert members.pop(change.user_id, None) == change.before
                    members[change.user_id] = change.after
        found = {user: row for user, row in sorted(members.items()) if row is not None}
        assert len(found) == membership.members
        return found

    def parts(self) -> set[str]:
        """In which forms the newest snapshot, of any state, is stored."""
        newest = self.rows("snapshot")[-1]["id"]
        return {c["part"] for c in self.rows("chunk") if c["snapshot_id"] == newest}

    def states(self) -> list[str]:
        return [row["state"] for row in self.rows("snapshot")]

    def outcomes(self) -> list[str]:
        return [row["outcome"] for row in self.rows("run")]

    def audience(self) -> dict[str, Any]:
        (row,) = self.rows("audience")
        return row

    def everything(self) -> dict[str, list[dict[str, Any]]]:
        return {table: self.rows(table) for table in schema.metadata.tables}


@pytest.fixture(scope="module")
def connect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Any]]:
    spill = tmp_path_factory.mktemp("spill")
    con = open_instance(memory_limit=300_000_000, threads=2, spill=spill)
    yield con.cursor
    con.close()


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "empty.db"
    database = Database(f"sqlite:///{path}")
    migrate.upgrade(database)
    database.close()
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, empty_store: Path) -> str:
    shutil.copy(empty_store, tmp_path / "state.db")
    return f"sqlite:///{tmp_path / 'state.db'}"


@pytest.fixture
def shop(tmp_path: Path, sqlite_url: str, connect: Callable[[], Any]) -> Iterator[Shop]:
    made = Shop(tmp_path, sqlite_url, connect)
    yield made
    made.database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_shop(
    request: pytest.FixtureRequest, tmp_path: Path, connect: Callable[[], Any]
) -> Iterator[Shop]:
    """The same on both databases."""
    fixture = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    made = Shop(tmp_path, str(request.getfixturevalue(fixture)), connect)
    yield made
    made.database.close()


# --- what is stored ------------------------------------------------------------------------------


def test_a_first_capture_is_a_base_and_later_ones_are_changes(any_shop: Shop) -> None:
    shop = any_shop
    first, then = people(0, 50), people(3, 52) | people(10, 12, plan="pro")
    assert shop.capture(first).outcome == "committed"
    assert (shop.parts(), shop.members()) == ({"base"}, first)
    assert shop.capture(then).outcome == "committed"
    assert (shop.parts(), shop.members()) == ({"changes"}, then)
    assert shop.seq() == 2
    current = shop.snapshots.current(KEY)
    assert current
    counts = current.counts
    assert (counts.entered, counts.exited, counts.updated, counts.members) == (2, 3, 2, 49)
    assert current.captured_at == START + 2 * HOUR


def test_a_run_is_recorded_with_its_snapshot(shop: Shop) -> None:
    shop.capture(people(0, 200))
    shop.write(people(0, 201), more=",lost\nu00000,free\n")
    shop.capture()
    snapshot, (_, run) = shop.rows("snapshot")[1], shop.rows("run")
    assert run["counts"] == {
        "entered": 1,
        "exited": 0,
        "updated": 0,
        "members": 201,
        "rows_read": 203,
        "refused": {"user_id is missing": 1},
        "duplicates": 1,
    }
    assert (run["outcome"], run["snapshot_id"]) == ("committed", snapshot["id"])
    assert (run["cycle_time"], run["error"]) == (START + 2 * HOUR, None)
    assert shop.audience()["last_captured_at"] == START + 2 * HOUR
    assert shop.audience()["next_due"] == START + 5 * HOUR


def test_a_first_capture_of_nobody_is_a_snapshot(shop: Shop) -> None:
    assert shop.capture({}).outcome == "committed"
    assert (shop.seq(), shop.members()) == (1, {})
    assert shop.capture({}).outcome == "unchanged"


def test_a_capture_that_finds_nothing_new_is_a_run_without_a_snapshot(shop: Shop) -> None:
    shop.capture(people(0, 20))
    before = shop.rows("snapshot"), shop.rows("chunk")
    outcome = shop.capture()
    assert outcome.outcome == "unchanged"
    assert (shop.rows("snapshot"), shop.rows("chunk")) == before
    assert shop.outcomes() == ["committed", "unchanged"]
    assert shop.audience()["last_captured_at"] == START + 2 * HOUR
    assert shop.audience()["next_due"] == START + 5 * HOUR


def test_what_waits_for_a_resync_is_due_within_the_same_second(shop: Shop) -> None:
    """``resync vip && sync``: the order has microseconds, the cycle time is cut to the second."""
    shop.capture(people(0, 20))
    now = shop.now + HOUR
    with shop.database.write() as connection:
        pair = Pair(known_audience_id(connection, KEY), destination_id(connection, "crisp"))
        request_resync(connection, pair, now + timedelta(milliseconds=400))
    captures = replace(shop.captures, clock=lambda: now + timedelta(milliseconds=700))
    outcomes = [captures.capture(shop.configured, now, only_if_due=True).outcome for _ in "12"]
    assert outcomes == ["unchanged", "not due"]


def test_a_base_again_when_changes_exceed_a_quarter_of_the_last(shop: Shop) -> None:
    changes, both = {"changes"}, {"base", "changes"}
    for state, parts in (
        (people(0, 100), {"base"}),
        (people(0, 110), changes),
        (people(2, 115), changes),
        (people(2, 123), changes),  # 10 + 7 + 8 are a quarter of the base
        (people(2, 124), both),  # and one more is above it
        (people(2, 125), changes),
    ):
        assert shop.capture(state).outcome == "committed"
        assert (shop.parts(), shop.members()) == (parts, state)


@pytest.mark.parametrize("columns", [{"plan": "free", "age": 7}, {"level": "free"}, {}], ids=str)
def test_a_base_again_when_the_columns_change(shop: Shop, columns: dict[str, object]) -> None:
    shop.capture(people(0, 30))
    now = {user: dict(columns) for user in people(0, 30)}
    assert shop.capture(now).outcome == "committed"
    assert (shop.parts(), shop.members()) == ({"base", "changes"}, now)


def test_a_base_again_when_only_a_type_changed(shop: Shop) -> None:
    shop.capture({"a": {"n": 1}, "b": {"n": 2}})
    shop.capture({"a": {"n": 1}, "b": {"n": 2.5}})
    assert (shop.parts(), shop.members()) == (
        {"base", "changes"},
        {"a": {"n": 1.0}, "b": {"n": 2.5}},
    )
    assert shop.capture().outcome == "unchanged"


def test_columns_that_change_while_nobody_is_a_member(shop: Shop) -> None:
    shop.capture({})
    shop.write(people(0, 3, age=7))
    (shop.folder / "vip.csv").write_text("user_id,plan,age\n")
    assert shop.capture().outcome == "committed"
    assert shop.rows("snapshot")[-1]["has_base"]
    assert shop.capture().outcome == "unchanged"
    assert shop.capture(people(0, 3, age=7)).outcome == "committed"
    assert shop.members() == people(0, 3, age=7)


# --- the plan ------------------------------------------------------------------------------------


def test_the_plan_that_is_examined_is_the_plan_that_is_stored(shop: Shop) -> None:
    for state in (people(0, 40), people(5, 50), {}):
        shop.write(state)
        plan = shop.plan()
        shop.capture()
        found = shop.snapshots.current(KEY) if state else shop.snapshots.held(KEY)[0]
        assert found
        assert found.plan_id == plan


def test_the_plan_does_not_depend_on_the_order_of_rows(shop: Shop) -> None:
    shop.capture(people(0, 300))
    plans = set()
    for seed in range(4):
        shop.write(people(7, 320, plan="pro"), seed=seed)
        plans.add(shop.plan())
    assert len(plans) == 1


def test_the_plan_is_another_for_other_changes_or_another_time(shop: Shop) -> None:
    plans = []
    for state in (people(0, 30), people(0, 31), people(1, 30)):
        shop.write(state)
        plans.append(shop.plan())
    with shop.examine(START + 9 * HOUR) as examined:
        plans.append(examined.plan_id)
    assert len(set(plans)) == len(plans)
    assert all(pipeline.plan_time(plan) > START for plan in plans)


def test_the_plan_is_another_when_the_same_happens_again(shop: Shop) -> None:
    plans = []
    for _ in range(2):
        shop.capture(people(0, 30))
        shop.write(people(0, 31))
        with shop.examine(START + 9 * HOUR) as examined:
            plans.append(examined.plan_id)
        shop.capture()
    assert plans[0] != plans[1]


def test_a_planned_capture_goes_only_as_planned(shop: Shop) -> None:
    shop.capture(people(0, 40))
    shop.write(people(0, 42))
    plan, before = shop.plan(), shop.everything()
    shop.write(people(0, 43))
    other = shop.capture(plans=[plan])
    assert (other.outcome, other.error and other.error.exit_code) == ("other plan", 3)
    assert plan not in str(other.error)
    assert shop.everything() | {"lease": []} == before | {"lease": []}
    shop.write(people(0, 42))
    shop.now -= HOUR
    assert shop.capture(plans=["20260101T0000Z-ffff", plan]).outcome == "committed"
    assert shop.members() == people(0, 42)


@pytest.mark.parametrize(
    "time", [START, START.replace(second=7), START.astimezone()], ids=["minutes", "seconds", "zone"]
)
def test_a_plan_id_says_its_cycle_time(time: datetime) -> None:
    plan = pipeline.plan_id("vip", Seq(3), time, "digest")
    assert pipeline.plan_time(plan) == time


@pytest.mark.parametrize("text", ["", "x", "20260101T0600Z", "20260101T0600Z-", "2026-01-01-7f3c"])
def test_what_is_no_plan_id_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a plan id"):
        pipeline.plan_time(text)


def test_an_explicit_time_before_the_last_capture_is_refused() -> None:
    pipeline.check_not_backwards(START, None)
    pipeline.check_not_backwards(START, START)
    with pytest.raises(UsageError, match="--now 20260101T0500Z is before"):
        pipeline.check_not_backwards(START - HOUR, START)


# --- the guard (P11) -----------------------------------------------------------------------------

DANGEROUS: dict[str, tuple[Sequence[Members], str]] = {
    "empty": ([people(0, 20), {}], "the source is empty: all 20 would leave"),
    "30 % smaller": ([people(0, 500), people(150, 500)], "30 % would leave (limit 20 %)"),
    "within 24 hours": (
        [people(0, 1_000), people(150, 1_000), people(300, 1_000), people(420, 1_000)],
        "42 % would have left within 24 h (limit 40 %)",
    ),
    "a forgotten WHERE": (
        [people(0, 50), people(0, 1_051)],
        "1,001 would enter an audience of 50 (limit 200 %)",
    ),
}


@pytest.mark.parametrize(("states", "reason"), DANGEROUS.values(), ids=DANGEROUS)
def test_a_dangerous_capture_is_held_and_nothing_current_changes(
    shop: Shop, states: Sequence[Members], reason: str
) -> None:
    for state in states[:-1]:
        assert shop.capture(state).outcome == "committed"
    seq, members = shop.seq(), shop.members()
    outcome = shop.capture(states[-1])
    assert outcome.outcome == "held"
    assert (shop.seq(), shop.members()) == (seq, members)
    (held,) = shop.snapshots.held(KEY)
    assert held.held_for == (reason,)
    assert shop.outcomes()[-1] == "held"
    assert shop.states()[-1] == "held"


def test_what_is_held_within_24_hours_is_not_held_a_day_later(shop: Shop) -> None:
    for state in DANGEROUS["within 24 hours"][0][:-1]:
        shop.capture(state)
    shop.now += 24 * HOUR
    assert shop.capture(people(420, 1_000)).outcome == "committed"


def test_limits_are_those_of_the_audience(shop: Shop) -> None:
    shop.limits = replace(Limits(), max_exits=0.5)
    shop.capture(people(0, 500))
    assert shop.capture(people(150, 500)).outcome == "committed"


def test_approve_commits_exactly_what_was_held(any_shop: Shop) -> None:
    shop = any_shop
    shop.capture(people(0, 400))
    shop.capture(people(200, 400, plan="pro"))
    (held,) = shop.snapshots.held(KEY)
    shop.write(people(0, 3))  # the source has changed since
    with shop.leases.hold(f"capture:{KEY}") as lease:
        shop.snapshots.approve(held, lease, reason="a big clean-up", actor="ann@ops")
    assert shop.members() == people(200, 400, plan="pro")
    assert (shop.seq(), shop.snapshots.held(KEY)) == (2, [])
    current = shop.snapshots.current(KEY)
    assert current
    assert current.plan_id == held.plan_id
    # Exits that were approved are out of the window: 39 % within 24 h are not 69 %.
    shop.capture(people(239, 400, plan="pro"))
    assert shop.outcomes()[-1] == "committed"


@pytest.mark.parametrize("later", [people(0, 405), people(0, 400)], ids=["changed", "unchanged"])
def test_a_later_capture_inside_the_limits_discards_what_is_held(
    shop: Shop, later: Members
) -> None:
    shop.capture(people(0, 400))
    shop.capture(people(200, 400))
    (held,) = shop.snapshots.held(KEY)
    shop.capture(later)
    assert shop.snapshots.held(KEY) == []
    assert shop.states()[1] == "discarded"
    assert {chunk["snapshot_id"] for chunk in shop.rows("chunk")}.isdisjoint({held.id})
    assert shop.members() == later
    with (
        shop.leases.hold(f"capture:{KEY}") as lease,
        pytest.raises(UsageError, match="no longer held"),
    ):
        shop.snapshots.approve(held, lease, reason=None, actor="ann@ops")


def test_a_later_dangerous_capture_is_held_beside_it(shop: Shop) -> None:
    shop.capture(people(0, 400))
    shop.capture(people(200, 400))
    shop.capture(people(250, 400))
    newest, older = shop.snapshots.held(KEY)
    assert (newest.counts.exited, older.counts.exited) == (250, 200)
    with shop.leases.hold(f"capture:{KEY}") as lease:
        shop.snapshots.approve(older, lease, reason=None, actor="ann@ops")
    assert shop.members() == people(200, 400)
    assert shop.states() == ["current", "current", "discarded"]


# --- reads that fail (P10) -----------------------------------------------------------------------


class BreakingSource:
    """Gives ``rows`` members, then raises."""

    def __init__(self, rows: int, error: Exception) -> None:
        self._rows = rows
        self._error = error

    @contextmanager
    def read(self, query: str, cycle_time: datetime) -> Iterator[pa.RecordBatchReader]:
        made = pa.schema({"user_id": pa.string(), "plan": pa.string()})

        def batches() -> Iterator[pa.RecordBatch]:
            members = people(0, self._rows)
            plans = [row["plan"] for row in members.values()]
            yield pa.record_batch({"user_id": list(members), "plan": plans}, schema=made)
            raise self._error

        yield pa.RecordBatchReader.from_batches(made, batches())


FAILURES: dict[str, tuple[SourceFailed, str, int]] = {
    "failed": (SourceFailed("the warehouse went away"), "failed", 1),
    "refused": (SourceRefused("the file was cut", hint="write it anew"), "refused", 65),
}


@pytest.mark.parametrize(("error", "outcome", "exit_code"), FAILURES.values(), ids=FAILURES)
def test_a_read_that_fails_leaves_everything_as_it_was(
    any_shop: Shop, error: SourceFailed, outcome: str, exit_code: int
) -> None:
    shop = any_shop
    shop.capture(people(0, 40))
    before = shop.everything()
    files, shop.source = shop.source, BreakingSource(39, error)
    found = shop.capture()
    assert (found.outcome, found.error, error.exit_code) == (outcome, error, exit_code)
    after = shop.everything()
    assert (after["snapshot"], after["chunk"]) == (before["snapshot"], before["chunk"])
    run = after["run"][-1]
    assert (run["outcome"], run["error"], run["snapshot_id"]) == ("failed", str(error), None)
    assert run["cycle_time"] == START + 2 * HOUR
    assert after["audience"] == [before["audience"][0] | {"last_error": str(error)}]

    shop.source = files
    assert shop.capture().outcome == "unchanged"
    assert shop.audience()["last_error"] is None


@pytest.mark.parametrize("next_one", [people(0, 41), {}], ids=["committed", "held"])
def test_the_error_is_forgotten_at_the_next_good_read(shop: Shop, next_one: Members) -> None:
    shop.capture(people(0, 40))
    (shop.folder / "vip.csv").unlink()
    assert shop.capture().outcome == "refused"
    assert "vip.csv" in shop.audience()["last_error"]
    shop.capture(next_one)
    assert shop.audience()["last_error"] is None


def test_a_first_read_that_fails_makes_no_snapshot(shop: Shop) -> None:
    (shop.folder / "vip.csv").write_text("id\n1\n")
    found = shop.capture()
    assert found.outcome == "refused"
    assert str(found.error) == "the query gives no column user_id, only id"
    assert (shop.seq(), shop.outcomes()) == (None, ["failed"])
    assert shop.capture(people(0, 3)).outcome == "committed"


def test_too_many_refused_rows_are_refused_with_their_counts(shop: Shop) -> None:
    shop.capture(people(0, 396))
    shop.write(people(0, 396), more=",a\nnull,a\n,a\nNaN,a\n")
    assert shop.capture().outcome == "unchanged"  # 4 of 400 are the 1 % that is allowed
    shop.write(people(0, 394), more="null,a\n1.5,a\n,a\n,a\nNaN,a\n,a\n")
    found = shop.capture()
    assert found.outcome == "refused"
    assert str(found.error) == (
        "1.5 % of 400 rows cannot be used (limit 1 %): user_id is missing (3), user_id is a word "
        "for nothing (null, NaN, None, undefined) (2), user_id looks like a float (1)"
    )
    assert shop.members() == people(0, 396)
    assert shop.audience()["last_error"] == str(found.error)


def test_refused_rows_keep_their_members(shop: Shop) -> None:
    shop.limits = replace(Limits(), max_refused_rows=0.5)
    was = {user: {"score": 1.5} for user in people(0, 30)}
    shop.capture(was)
    shop.capture(was | {user: {"score": "NaN"} for user in people(0, 10)})
    assert shop.outcomes() == ["committed", "unchanged"]
    assert shop.members() == was
    assert shop.rows("run")[-1]["counts"]["refused"] == {
        "score is not a number that can travel (NaN, Inf, too large)": 10
    }


# --- crashes and leases --------------------------------------------------------------------------


class Crash(BaseException):
    """As if the process had ended here."""


def crash_before_commit(shop: Shop, state: Members) -> None:
    def crashing(*_: object, **__: object) -> None:
        raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Snapshots, "commit", crashing)
        with pytest.raises(Crash):
            shop.capture(state)
    assert shop.states()[-1] == "staged"
    assert shop.parts()


def test_after_a_crash_between_staging_and_commit_the_old_snapshot_stands(any_shop: Shop) -> None:
    shop = any_shop
    shop.capture(people(0, 40))
    crash_before_commit(shop, people(0, 60))
    assert (shop.seq(), shop.members(), shop.outcomes()) == (1, people(0, 40), ["committed"])
    assert shop.capture(people(1, 45)).outcome == "committed"
    assert shop.members() == people(1, 45)
    assert shop.states() == ["current", "current"]
    snapshots = {row["id"] for row in shop.rows("snapshot")}
    assert {chunk["snapshot_id"] for chunk in shop.rows("chunk")} == snapshots


def test_after_a_crash_in_a_first_capture_there_is_none(shop: Shop) -> None:
    crash_before_commit(shop, people(0, 60))
    assert (shop.seq(), shop.outcomes()) == (None, [])
    assert shop.capture(people(0, 40)).outcome == "committed"
    assert (shop.states(), shop.members()) == (["current"], people(0, 40))


def test_what_a_killed_capture_staged_is_swept_also_when_nothing_is_new(shop: Shop) -> None:
    shop.capture(people(0, 40))
    crash_before_commit(shop, people(0, 60))
    assert shop.capture(people(0, 40)).outcome == "unchanged"
    assert (shop.states(), shop.parts()) == (["current"], {"base"})


def test_a_store_that_fails_while_staging_is_not_the_source_s_fault(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.capture(people(0, 40))

    def full(*_: object, **__: object) -> None:
        raise StoreFailed("the store failed: database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("audience_sync.store.chunks._insert", full)
        with pytest.raises(StoreFailed):
            shop.capture(people(0, 60))
    assert (shop.seq(), shop.audience()["last_error"]) == (1, None)
    assert shop.capture(people(0, 60)).outcome == "committed"


@dataclass
class ReplacedWhileRead:
    """Its file is another one, renamed into place, after each of the first ``times`` reads."""

    shop: Shop
    source: Source
    times: int
    reads: int = 0

    @contextmanager
    def read(self, query: str, cycle_time: datetime) -> Iterator[pa.RecordBatchReader]:
        with self.source.read(query, cycle_time) as rows:
            self.reads += 1
            if self.reads <= self.times:
                there, beside = self.shop.folder / "vip.csv", self.shop.folder / "next.csv"
                beside.write_text(there.read_text() + f"late-{self.reads},\n")
                beside.rename(there)
            yield rows


def test_a_file_replaced_while_it_is_read_is_read_once_more(shop: Shop) -> None:
    shop.capture(people(0, 40))
    source = shop.source = ReplacedWhileRead(shop, shop.source, times=1)
    found = shop.capture(people(0, 42))
    assert (found.outcome, source.reads) == ("committed", 2)
    assert shop.members().keys() == people(0, 42).keys() | {"late-1"}


def test_a_file_that_is_replaced_again_and_again_fails_the_capture(shop: Shop) -> None:
    shop.capture(people(0, 40))
    before = shop.members()
    source = shop.source = ReplacedWhileRead(shop, shop.source, times=5)
    found = shop.capture(people(0, 42))
    assert (found.outcome, source.reads) == ("failed", 2)
    assert isinstance(found.error, SourceReplaced)
    assert shop.members() == before
    source.times = 0
    assert shop.capture().outcome == "committed"


def test_an_audience_that_another_captures_is_left_to_it(shop: Shop) -> None:
    shop.capture(people(0, 40))
    before = shop.everything()
    with Leases(shop.database).hold(f"capture:{KEY}"):
        found = shop.capture(people(0, 41))
        assert found.outcome == "leased"
        assert isinstance(found.error, LeaseTaken)
    assert shop.everything() | {"lease": []} == before | {"lease": []}
    assert shop.capture().outcome == "committed"


# --- looking writes nothing (P12) ----------------------------------------------------------------


def look(shop: Shop, states: Collection[Members | None]) -> None:
    """What ``diff`` does: examine, and read all changes and members."""
    for state in states:
        if state is None:
            (shop.folder / "vip.csv").unlink()
            with pytest.raises(SourceRefused), shop.examine():
                pass
            continue
        shop.write(state)
        with shop.examine() as examined:
            assert sum(batch.num_rows for batch in examined.comparison.members()) == len(state)
            changes = sum(batch.num_rows for batch in examined.comparison.changes())
            assert bool(changes) == examined.comparison.counts.changed


LOOKED_AT: list[Members | None] = [people(0, 400), people(3, 450), people(200, 400), {}, None]


def test_examining_leaves_the_file_as_it_is(shop: Shop) -> None:
    shop.capture(people(0, 400))
    shop.capture(people(0, 410))
    shop.capture({})
    before = stored_bytes(shop)
    look(shop, LOOKED_AT)
    assert stored_bytes(shop) == before
    shop.capture(people(0, 411))
    assert stored_bytes(shop) != before


def stored_bytes(shop: Shop) -> dict[str, bytes]:
    """Of the store's file, and of what SQLite keeps beside it, after the last connection."""
    shop.database.close()
    return {path.name: path.read_bytes() for path in shop.folder.glob("state.db*")}


def test_examining_an_empty_store_leaves_it_empty(shop: Shop) -> None:
    before = stored_bytes(shop)
    look(shop, [people(0, 40), {}])
    assert stored_bytes(shop) == before


def test_examining_writes_no_row(postgres_url: str, tmp_path: Path, connect: Any) -> None:
    shop = Shop(tmp_path, postgres_url, connect)
    shop.capture(people(0, 400))
    shop.capture({})
    before, writes = shop.everything(), written(shop)
    look(shop, LOOKED_AT)
    assert shop.everything() == before
    assert written(shop) == writes
    shop.capture(people(0, 411))
    assert written(shop) != writes
    shop.database.close()


def written(shop: Shop) -> str:
    """PostgreSQL gives a number only to a transaction that writes; asking takes none."""
    with shop.database.read() as connection:
        return str(connection.scalar(select(func.pg_snapshot_xmax(func.pg_current_snapshot()))))
