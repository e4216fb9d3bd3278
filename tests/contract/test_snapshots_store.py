"""Snapshots on both databases: staged, visible at once, held, approved, pruned (P1, P11)."""

from __future__ import annotations

from datetime import datetime, timedelta

import pyarrow as pa
import pytest

from audience_sync.domain.audience import Audience, AudienceKey, Kind, Row, Seq, Tell
from audience_sync.domain.guard import Limits, Window
from audience_sync.domain.span import Span, SpanKind
from audience_sync.errors import AudienceSyncError, LeaseLost, StoreFailed, UsageError
from audience_sync.pipeline.ports.capturing import Snapshot
from audience_sync.pipeline.ports.delivering import Waiting
from audience_sync.store import chunks
from audience_sync.store.engine import Database
from audience_sync.store.orders import Given, Orders
from tests.fakes.snapshot_log import (
    HOUR,
    START,
    Log,
    column,
    execute,
    new_lease,
    people,
    scalar,
)

ALL = frozenset(Tell)


@pytest.fixture
def log(database: Database) -> Log:
    return Log(database)


def states(log: Log) -> list[str]:
    return column(log.database, "SELECT state FROM snapshot ORDER BY id")


def outcomes(log: Log) -> list[str]:
    return column(log.database, "SELECT outcome FROM run ORDER BY id")


def chunk_count(log: Log, snapshot_id: int) -> int:
    sql = "SELECT count(*) FROM chunk WHERE snapshot_id = :id"
    return int(scalar(log.database, sql, id=snapshot_id))


def seen(log: Log) -> tuple[int | None, int, int]:
    """What others see: the current seq, runs, members of the newest snapshot."""
    current = log.snapshots.current(log.key)
    runs = int(scalar(log.database, "SELECT count(*) FROM run"))
    return (
        (None, runs, 0) if current is None else (current.seq, runs, len(log.members(current.seq)))
    )


def open_span(log: Log, destination: str = "crisp", told_seq: int | None = None) -> Span:
    newest = log.kept[log.seq]
    waiting = Waiting(
        audience=log.key,
        kind=SpanKind.INITIAL if told_seq is None else SpanKind.INCREMENTAL,
        told_seq=None if told_seq is None else Seq(told_seq),
        to_seq=log.seq,
        members=len(newest),
    )
    lane = "initial" if told_seq is None else "incremental"
    lease = new_lease(log.database, f"deliver:{destination}:{lane}")
    return log.spans.open(waiting, destination, tell=ALL, limits=Limits(), lease=lease)


def finish(log: Log, span: Span) -> None:
    lease = new_lease(log.database, f"finish:{span.destination}:{span.number}")
    log.spans.complete(span, lease)


def told(log: Log, destination: str = "crisp") -> None:
    """A destination that was told everything up to the newest snapshot."""
    finish(log, open_span(log, destination, log.spans.told_seq(destination, log.key)))


def prune(log: Log, keep: timedelta = timedelta(0)) -> int:
    log.snapshots._keep = keep
    return log.snapshots.prune(log.key, log.clock.now, log.lease)


def bases(log: Log) -> list[int]:
    return column(
        log.database, "SELECT seq FROM snapshot WHERE has_base AND state = 'current' ORDER BY seq"
    )


def parts(log: Log, part: str) -> list[int]:
    sql = (
        "SELECT DISTINCT s.seq FROM chunk c JOIN snapshot s ON s.id = c.snapshot_id "
        "WHERE c.part = :part ORDER BY s.seq"
    )
    return column(log.database, sql, part=part)


class TestCommit:
    def test_nobody_sees_what_is_staged(self, log: Log) -> None:
        log.put(people("a", "b", "c"))
        log.stage(people("a", "d", "e"), base=True)
        assert seen(log) == (1, 1, 3)
        assert log.members(1) == people("a", "b", "c")

    def test_snapshot_chunks_and_run_appear_together(self, log: Log, store_url: str) -> None:
        log.put(people("a", "b", "c"))
        staged = log.stage(people("a", "d", "e", "f", "g"), base=True)
        reader = Log(Database(store_url), key=AudienceKey("reader"))
        reader.key = log.key
        before = seen(reader)
        log.snapshots.commit(staged, log.lease, started_at=START)
        assert before == (1, 1, 3)
        assert seen(reader) == (2, 2, 5)
        reader.database.close()

    def test_a_commit_that_fails_in_the_middle_shows_nothing(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log.put(people("a", "b"))
        staged = log.stage(people("a"))
        execute(log.database, "ALTER TABLE run RENAME TO run_away")
        try:
            with pytest.raises(StoreFailed):
                log.snapshots.commit(staged, log.lease, started_at=START)
        finally:
            execute(log.database, "ALTER TABLE run_away RENAME TO run")
        assert seen(log) == (1, 1, 2)
        assert states(log) == ["current", "staged"]

    def test_everything_of_a_capture_is_kept(self, log: Log) -> None:
        made = log.put(people("a", "b"))
        assert made == log.snapshots.current(log.key)
        assert (made.seq, made.captured_at) == (1, START)
        assert (made.counts.entered, made.counts.members) == (2, 2)
        assert dict(made.columns) == {"email": "string"}
        assert log.snapshots.last_captured(log.key) == START
        assert log.snapshots.next_due(log.key) == START + 3 * HOUR
        assert outcomes(log) == ["committed"]

    def test_unsorted_rows_are_never_stored(self, log: Log) -> None:
        wrong = pa.record_batch({"user_id": ["b", "a"]})
        with pytest.raises(ValueError, match="not sorted"):
            log.snapshots.stage(
                log.capture(people("a", "b")), changes=None, base=[wrong], lease=log.lease
            )
        twice = pa.record_batch({"user_id": ["a"]})
        with pytest.raises(ValueError, match="not sorted"):
            log.snapshots.stage(
                log.capture(people("a")), changes=None, base=[twice, twice], lease=log.lease
            )
        assert seen(log) == (None, 0, 0)

    def test_unchanged_makes_a_run_and_no_snapshot(self, log: Log) -> None:
        log.put(people("a"))
        log.clock.now += HOUR
        capture = log.capture(people("a"))
        log.snapshots.unchanged(capture, log.lease, started_at=log.clock.now)
        assert outcomes(log) == ["committed", "unchanged"]
        assert states(log) == ["current"]
        assert log.snapshots.last_captured(log.key) == capture.cycle_time
        assert log.snapshots.next_due(log.key) == capture.next_due

    def test_a_failed_capture_leaves_snapshot_and_due_time(self, log: Log) -> None:
        log.put(people("a"))
        due = log.snapshots.next_due(log.key)
        failed = Audience(key=log.key, name="VIP", source="s", query="", destinations=())
        log.snapshots.failed(failed, START + HOUR, "no route", log.lease, started_at=START)
        assert seen(log) == (1, 2, 1)
        assert log.snapshots.next_due(log.key) == due
        assert column(log.database, "SELECT last_error FROM audience") == ["no route"]
        log.put(people("a", "b"))
        assert column(log.database, "SELECT last_error FROM audience") == [None]

    def test_sweep_removes_what_a_killed_capture_staged(self, log: Log) -> None:
        log.put(people("a", "b", "c"))
        orphan = log.stage(people(*"abcdefgh"), base=True)
        other = Log(log.database, key=AudienceKey("other"))
        elsewhere = other.stage(people("x"))
        assert chunk_count(log, orphan)
        log.snapshots.sweep(log.key, log.lease)
        assert chunk_count(log, orphan) == 0
        assert states(log) == ["current", "staged"]
        assert chunk_count(log, elsewhere)
        assert log.members(1) == people("a", "b", "c")

    def test_an_old_epoch_stages_and_commits_nothing(self, log: Log) -> None:
        log.put(people("a"))
        staged = log.stage(people("a", "b"))
        chunks_before = scalar(log.database, "SELECT count(*) FROM chunk")
        take_over(log)
        with pytest.raises(LeaseLost):
            log.snapshots.commit(staged, log.lease, started_at=START)
        with pytest.raises(LeaseLost):
            log.stage(people("a", "c"))
        with pytest.raises(LeaseLost):
            chunks.write(log.database, staged, chunks.BASE, [batch("a")], log.lease)
        with pytest.raises(LeaseLost):
            log.snapshots.sweep(log.key, log.lease)
        with pytest.raises(LeaseLost):
            log.snapshots.unchanged(log.capture(people("a")), log.lease, started_at=START)
        assert seen(log) == (1, 1, 1)
        assert states(log) == ["current", "staged"]
        assert scalar(log.database, "SELECT count(*) FROM chunk") == chunks_before


def batch(*ids: str) -> pa.RecordBatch:
    return pa.record_batch({"user_id": list(ids)})


def take_over(log: Log) -> None:
    new_lease(log.database, log.lease.name)


class TestHeld:
    def test_nobody_is_told_of_a_held_capture(self, log: Log) -> None:
        log.put(people("a", "b"))
        held = log.hold({})
        assert seen(log) == (1, 2, 2)
        assert log.snapshots.held(log.key) == [held]
        assert log.snapshots.held() == [held]
        assert outcomes(log) == ["committed", "held"]
        assert log.snapshots.last_captured(log.key) == held.captured_at

    def test_the_newest_five_are_kept(self, log: Log) -> None:
        log.put(people(*"abcdefgh"))
        made = [log.hold(people("a", name)) for name in "bcdefgh"]
        assert log.snapshots.held(log.key) == made[:1:-1]
        assert states(log) == ["current"] + ["discarded"] * 2 + ["held"] * 5
        assert [chunk_count(log, s.id) > 0 for s in made] == [False] * 2 + [True] * 5

    def test_a_later_good_capture_discards_them(self, log: Log) -> None:
        log.put(people("a", "b"))
        held = log.hold({})
        log.put(people("a", "b", "c"))
        assert states(log) == ["current", "discarded", "current"]
        assert chunk_count(log, held.id) == 0
        with pytest.raises(UsageError, match="no longer held"):
            log.snapshots.approve(held, log.lease, reason=None, actor="ann@ops")
        assert seen(log)[0] == 2

    def test_an_unchanged_capture_discards_them(self, log: Log) -> None:
        log.put(people("a", "b"))
        log.hold({})
        log.snapshots.unchanged(log.capture(people("a", "b")), log.lease, started_at=START)
        assert log.snapshots.held(log.key) == []
        assert states(log) == ["current", "discarded"]

    def test_held_captures_of_others_stay(self, log: Log) -> None:
        other = Log(log.database, key=AudienceKey("other"))
        other.put(people("a"))
        held = other.hold({})
        log.put(people("a"))
        log.put(people("a", "b"))
        assert log.snapshots.held() == [held]

    def test_approve_commits_exactly_that_one(self, log: Log) -> None:
        log.put(people("a", "b"))
        log.hold({})
        wanted = log.hold(people("a"))
        log.hold(people("b"))
        log.approve(wanted, people("a"))
        assert seen(log) == (2, 5, 1)
        assert log.members(2) == people("a")
        assert log.net(1, 2) == log.difference(1, 2)
        assert states(log) == ["current", "discarded", "current", "discarded"]
        assert outcomes(log)[-1] == "approved"
        assert column(log.database, "SELECT actor FROM run ORDER BY id")[-2:] == [None, "ann@ops"]
        log.put(people("a", "c"))
        assert log.members(3) == people("a", "c")

    def test_discard_drops_only_that_one(self, log: Log) -> None:
        log.put(people("a", "b"))
        one, two = log.hold({}), log.hold(people("a"))
        log.snapshots.discard(one, log.lease, reason="wrong file", actor="ann@ops")
        assert log.snapshots.held(log.key) == [two]
        assert chunk_count(log, one.id) == 0
        assert outcomes(log)[-1] == "discarded"
        assert column(log.database, "SELECT actor FROM run ORDER BY id")[-1] == "ann@ops"
        with pytest.raises(UsageError):
            log.snapshots.approve(one, log.lease, reason=None, actor="ann@ops")

    def test_one_cannot_be_discarded_after_it_was_approved(self, log: Log) -> None:
        """Two operators: one says yes while the other is still being asked."""
        log.put(people("a", "b"))
        held = log.hold(people("a"))
        log.approve(held, people("a"))
        with pytest.raises(UsageError, match="no longer held"):
            log.snapshots.discard(held, log.lease, reason=None, actor="ann@ops")
        assert log.members(2) == people("a")
        assert outcomes(log)[-1] == "approved"

    def test_a_held_base_is_usable_after_approval(self, log: Log) -> None:
        log.put(people("a", "b"))
        held = log.put(people("c"), base=True, held_for=("all would leave",))
        log.approve(held, people("c"))
        membership = log.snapshots.membership(log.key, Seq(2))
        assert [b.column(0).to_pylist() for b in membership.base()] == [["c"]]
        assert membership.changes == []


class TestWindow:
    def window(self, log: Log, after: datetime) -> tuple[int, int]:
        found = log.snapshots.window(log.key, after)
        assert isinstance(found, Window)
        return found.members_at_start, found.unapproved_exits

    def test_nothing_captured_yet(self, log: Log) -> None:
        assert self.window(log, START) == (0, 0)

    def test_exits_of_the_last_24_hours_against_the_members_then(self, log: Log) -> None:
        log.put(people(*"abcdefgh"))  # 06:00
        log.clock.now = START + 10 * HOUR
        log.put(people(*"cdefgh"))
        log.clock.now = START + 20 * HOUR
        log.put(people(*"efgh"))
        assert self.window(log, START + 24 * HOUR) == (8, 4)
        assert self.window(log, START + 33 * HOUR) == (8, 4)
        # Exactly 24 hours later the capture is the start, no longer a part of the window.
        assert self.window(log, START + 34 * HOUR) == (6, 2)
        assert self.window(log, START + 44 * HOUR) == (4, 0)

    def test_a_young_audience_is_measured_by_what_it_began_with(self, log: Log) -> None:
        log.put({})
        log.put(people(*"abcdef"))
        log.put(people(*"abc"))
        assert self.window(log, log.clock.now) == (6, 3)

    def test_approved_exits_are_left_out(self, log: Log) -> None:
        log.put(people(*"abcdefgh"))
        log.put(people(*"abcdefg"))
        log.approve(log.hold(people("a")), people("a"))
        # Six of the eight left with approval: the limit is a share of the other two.
        assert self.window(log, log.clock.now) == (2, 1)

    def test_held_captures_and_other_audiences_count_nothing(self, log: Log) -> None:
        other = Log(log.database, key=AudienceKey("other"))
        other.put(people(*"abcdef"))
        other.put({})
        log.put(people(*"abcd"))
        log.hold({})
        assert self.window(log, log.clock.now) == (4, 0)


class TestMembership:
    def test_base_and_the_changes_since(self, log: Log) -> None:
        log.put(people(*"abc"))
        log.put(people(*"abcd"))
        log.put(people(*"abe"), base=True)
        log.put(people(*"abef"))
        log.put(people(*"abefg"))
        membership = log.snapshots.membership(log.key, Seq(5))
        assert membership.members == 5
        assert [r for b in membership.base() for r in b.column(0).to_pylist()] == ["a", "b", "e"]
        changed = [[r for b in c() for r in b.column(0).to_pylist()] for c in membership.changes]
        assert changed == [["f"], ["g"]]
        assert len(log.snapshots.membership(log.key, Seq(2)).changes) == 1

    def test_each_scan_starts_anew(self, log: Log) -> None:
        log.put(people(*"abcde"))
        membership = log.snapshots.membership(log.key, Seq(1))
        assert len(list(membership.base())) == len(list(membership.base())) == 3

    def test_changed_since_base(self, log: Log) -> None:
        assert log.snapshots.changed_since_base(log.key) == (0, 0)
        log.put(people(*"abcd"))
        assert log.snapshots.changed_since_base(log.key) == (0, 4)
        log.put(people(*"abce"))
        log.hold({})
        log.put(people(*"abcef"))
        assert log.snapshots.changed_since_base(log.key) == (3, 4)
        log.put(people(*"abcefg"), base=True)
        log.put(people(*"abcef"))
        assert log.snapshots.changed_since_base(log.key) == (1, 6)

    def test_a_snapshot_that_is_not_there_is_said_so(self, log: Log) -> None:
        with pytest.raises(AudienceSyncError):
            log.snapshots.membership(log.key, Seq(1))
        for user_id in "abc":
            log.put(people(user_id), base=True)
        prune(log)
        with pytest.raises(AudienceSyncError, match="vip"):
            log.snapshots.membership(log.key, Seq(1))


class TestPrune:
    def five(self, log: Log) -> None:
        """Bases at 1, 3 and 5; changes from 2 on."""
        for number, members in enumerate(["abc", "abcd", "bcd", "bcde", "bcdef"], start=1):
            log.put(people(*members), base=bool(number % 2))

    def test_without_a_pin_only_the_newest_base_is_left(self, log: Log) -> None:
        self.five(log)
        assert prune(log) > 0
        assert (bases(log), parts(log, "base"), parts(log, "changes")) == ([5], [5], [])
        assert log.members(5) == log.kept[5]
        assert prune(log) == 0

    def test_what_is_younger_than_keep_stays_readable(self, log: Log) -> None:
        self.five(log)
        prune(log, keep=timedelta(hours=4))  # the snapshots 2 to 5
        assert (bases(log), parts(log, "changes")) == ([5], [3, 4, 5])
        for seq in (2, 3, 4, 5):
            assert log.members(seq) == log.kept[seq]
            assert log.net(2, seq) == log.difference(2, seq)

    def test_what_a_destination_was_told_is_pinned(self, log: Log) -> None:
        for members in ("abc", "abcd"):
            log.put(people(*members), base=True)
        told(log)
        for members in ("bcd", "bcde", "bcdef"):
            log.put(people(*members), base=True)
        told(log, "segment")
        prune(log)
        assert (bases(log), parts(log, "changes")) == ([5], [3, 4, 5])
        assert log.net(2, 5) == log.difference(2, 5)

    def test_an_open_incremental_span_is_pinned(self, log: Log) -> None:
        log.put(people("a"))
        told(log)
        log.put(people("b"), base=True)
        span = open_span(log, told_seq=1)
        log.put(people("c"), base=True)
        log.put(people("d"), base=True)
        prune(log)
        assert list(log.spans.changes(span)) == log.difference(1, 2)

    def test_an_open_span_pins_by_itself(self, log: Log) -> None:
        """Also when what was told is forgotten, or only a later base is left to walk back from."""
        for members in ("a", "b", "c", "d"):
            log.put(people(*members), base=True)
        told(log)
        log.put(people("e"))
        span, whole = open_span(log, told_seq=4), open_span(log, "segment")
        for members in ("f", "g"):
            log.put(people(*members), base=True)
        execute(log.database, "DELETE FROM told")
        execute(log.database, "UPDATE snapshot SET has_base = :no WHERE seq < 6", no=False)
        prune(log)
        assert list(log.spans.changes(span)) == log.difference(4, 5)
        execute(log.database, "UPDATE span SET state = 'completed' WHERE id = :id", id=span.id)
        prune(log)
        assert parts(log, "changes") == [6, 7]
        assert list(log.spans.changes(whole)) == log.difference(0, 5)

    @pytest.mark.parametrize("held", [False, True])
    def test_an_open_initial_walk_keeps_its_base(self, log: Log, held: bool) -> None:
        self.five(log)
        span = open_span(log)
        if held:
            execute(log.database, "UPDATE span SET state = 'held'")
        log.put(people(*"xyz"), base=True)
        log.put(people(*"yz"))
        prune(log)
        assert bases(log) == [5, 6]
        assert parts(log, "changes") == [6, 7]
        assert [c.after for c in log.spans.changes(span)] == [*log.kept[5].values()]

    def test_a_walk_from_the_base_before_keeps_that_and_the_way(self, log: Log) -> None:
        log.put(people("a"))
        log.put(people("a", "b"))
        log.put(people("a", "b", "c"))
        span = open_span(log)
        log.put(people("d"), base=True)
        prune(log)
        assert bases(log) == [1, 4]
        assert parts(log, "changes") == [2, 3, 4]
        assert len(list(log.spans.changes(span))) == 3

    def test_a_completed_walk_lets_go(self, log: Log) -> None:
        self.five(log)
        span = open_span(log)
        log.put(people("z"), base=True)
        finish(log, span)
        prune(log)
        assert (bases(log), parts(log, "changes")) == ([6], [6])  # from 5, which was told

    def test_staged_and_held_captures_are_left_alone(self, log: Log) -> None:
        self.five(log)
        held = log.hold(people("a"))
        staged = log.stage(people("b"), base=True)
        before = chunk_count(log, held.id), chunk_count(log, staged)
        prune(log)
        assert (chunk_count(log, held.id), chunk_count(log, staged)) == before

    def test_other_audiences_are_left_alone(self, log: Log) -> None:
        other = Log(log.database, key=AudienceKey("other"))
        self.five(other)
        self.five(log)
        prune(log)
        for seq in range(1, 6):
            assert other.members(seq) == other.kept[seq]

    def test_old_runs_go_but_for_the_newest_good_capture_and_orders(self, log: Log) -> None:
        log.put(people("a"))
        Orders(log.database, log.clock).pause(log.key, "VIP", Kind.AUDIENCE, Given(actor="ann"))
        log.clock.now += timedelta(days=3)
        runs = "SELECT kind FROM run ORDER BY id"
        assert column(log.database, runs) == ["capture", "pause"]
        insert = (
            "INSERT INTO run (kind, audience_id, started_at, ended_at, outcome, counts) "
            "SELECT 'capture', id, :at, :at, :outcome, '{}' FROM audience"
        )
        for hours, outcome in ((2, "failed"), (1, "unchanged"), (0, "failed")):
            at = log.clock.now - timedelta(hours=hours)
            execute(log.database, insert, at=at, outcome=outcome)
        prune(log, timedelta(minutes=30))
        outcomes = "SELECT outcome FROM run ORDER BY id"
        assert column(log.database, outcomes) == ["ordered", "unchanged", "failed"]

    def test_an_old_epoch_prunes_nothing(self, log: Log) -> None:
        self.five(log)
        take_over(log)
        with pytest.raises(LeaseLost):
            prune(log)
        assert bases(log) == [1, 3, 5]

    def test_a_pruned_snapshot_is_never_read_as_a_smaller_one(self, log: Log) -> None:
        self.five(log)
        prune(log)
        with pytest.raises(AudienceSyncError):
            log.net(2, 5)
        with pytest.raises(AudienceSyncError):
            log.members(4)

    def test_a_read_that_prune_overtakes_fails(self, log: Log) -> None:
        """The rows of the log were read; then its chunks went."""
        for members in ("abcdef", "ghijkl"):
            log.put(people(*members), base=True)
        walk = log.spans.net(log.key, Seq(0), Seq(1))
        membership = log.snapshots.membership(log.key, Seq(1))
        prune(log)
        with pytest.raises(StoreFailed):
            list(walk)
        with pytest.raises(StoreFailed):
            list(membership.base())

    def test_a_read_in_the_middle_of_its_chunks_fails_too(self, log: Log) -> None:
        for members in ("abcdef", "ghijkl"):
            log.put(people(*members), base=True)
        reading = iter(log.snapshots.membership(log.key, Seq(1)).base())
        next(reading)
        prune(log)
        with pytest.raises(StoreFailed, match="no longer kept"):
            list(reading)


def test_snapshots_without_carried_columns(log: Log) -> None:
    bare: dict[str, Row] = {user_id: {} for user_id in ("a", "b")}
    staged = log.snapshots.stage(
        log.capture(bare, columns={}), changes=None, base=[batch("a", "b")], lease=log.lease
    )
    made: Snapshot = log.snapshots.commit(staged, log.lease, started_at=START)
    assert dict(made.columns) == {}
    assert [(c.user_id, c.after) for c in log.net(0, 1)] == [("a", {}), ("b", {})]
