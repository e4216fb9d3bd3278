"""One walk of one span: what is told, what is committed, and what ends it early (P2, P3, P5)."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audience_sync.domain.audience import Tell
from audience_sync.domain.guard import Limits
from audience_sync.domain.span import Span
from audience_sync.errors import (
    AudienceSyncError,
    BadCalls,
    CredentialsRefused,
    DestinationPaused,
    LeaseLost,
    RetryLater,
    StoreFailed,
)
from audience_sync.pipeline import send
from audience_sync.pipeline.allowance import Taken
from audience_sync.pipeline.batches import AHEAD
from audience_sync.pipeline.deliver import Walk
from audience_sync.store import migrate
from audience_sync.store.engine import Database
from audience_sync.store.leases import Leases
from audience_sync.store.spans import Spans
from tests.fakes.destination import Answer, FakeDestination
from tests.fakes.quotas import allowance
from tests.fakes.snapshot_log import VIP, Log, people
from tests.fakes.spans import FakeLease, FakeSpans, entered

EVERYTHING = frozenset(Tell)


def users(count: int) -> list[str]:
    return [f"u{number:05}" for number in range(count)]


class Delivery:
    """One span to a fake destination, walked as often as a test likes."""

    def __init__(self, count: int, answer: Answer | None = None, **options: object) -> None:
        self.to = FakeDestination(**options)  # type: ignore[arg-type]
        self.to.answer = answer or self.to.answer
        self.spans = FakeSpans(of=entered(users(count)), to=self.to)
        self.lease = FakeLease()
        self.stop = threading.Event()
        self.progress: list[Span] = []

    def walk(self, *, probing: bool = False, elapsed: Callable[[], float] = time.monotonic) -> Span:
        walk = Walk(
            destination=self.to,
            spans=self.spans,  # type: ignore[arg-type]
            lease=self.lease,
            pace=send.SharedPace(self.to.rate, elapsed),
            allowance=allowance(self.to, self.lease),
            stop=self.stop,
            installation="installation",
            progress=self.progress.append,
            probing=probing,
        )
        try:
            (walked,) = walk.deliver([self.spans.stored])
            return walked
        finally:
            assert self.to.in_flight == 0, "a request was left behind"
            assert self.to.open_senders == 0, "a connection was left open"

    def fails(self, error: type[AudienceSyncError], **how: bool) -> AudienceSyncError:
        with pytest.raises(error) as caught:
            self.walk(**how)  # type: ignore[arg-type]
        assert not self.spans.completed
        return caught.value

    def finish(self) -> None:
        """Walk on from what is stored, undisturbed."""
        self.to.answer = lambda _: None
        self.walk()
        assert self.spans.completed
        assert set(self.to.told) == set(users(len(self.spans.of)))
        assert all(len(bodies) == 1 for bodies in self.to.bodies().values())

    def repeats(self) -> int:
        return len(self.to.told) - len(set(self.to.told))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were waited; none of them pass."""
    waited: list[float] = []

    def sleep(sending: send.Sending, seconds: float, _taken: Taken) -> None:
        if seconds > 0:
            waited.append(seconds)
        if sending.stop.is_set():
            raise send.Stopped("stopping")

    monkeypatch.setattr(send.Sending, "_sleep", sleep)
    return waited


def jitter(draw: random.Random) -> Answer:
    """Answers come in any order."""
    return lambda _: time.sleep(draw.random() * 0.004)


def first_times(number: int, error: Callable[[], Exception]) -> Answer:
    """The first ``number`` requests get ``error``."""
    left = [number]
    lock = threading.Lock()

    def answer(_user_ids: Sequence[str]) -> None:
        with lock:
            left[0] -= 1
            failing = left[0] >= 0
        if failing:
            raise error()

    return answer


def of_user(user_id: str, error: Callable[[], Exception]) -> Answer:
    """Requests that hold ``user_id`` get ``error``."""

    def answer(user_ids: Sequence[str]) -> None:
        if user_id in user_ids:
            raise error()

    return answer


# Undisturbed


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 120),
    concurrency=st.integers(1, 8),
    max_calls=st.integers(1, 15),
)
def test_everyone_is_told_once_in_whatever_order_answers_come(
    seed: int, count: int, concurrency: int, max_calls: int
) -> None:
    delivery = Delivery(
        count, jitter(random.Random(seed)), concurrency=concurrency, max_calls=max_calls
    )
    span = delivery.walk()
    assert delivery.spans.completed
    assert sorted(delivery.to.sent) == users(count)
    assert span.books.accepted == count
    assert span.books.remaining == 0
    assert [s.position for s in delivery.progress] == [s.position for s in delivery.spans.commits]


def test_never_more_than_concurrency_batches_beyond_the_committed_position() -> None:
    draw, beyond = random.Random(7), []
    delivery = Delivery(400, concurrency=5, max_calls=4)

    def answer(user_ids: Sequence[str]) -> None:
        started = int(user_ids[0][1:]) // 4 + 1
        position = delivery.spans.stored.position
        committed = 0 if position is None else (int(position[1:]) + 1) // 4
        beyond.append(started - committed)
        time.sleep(draw.random() * 0.01)

    delivery.to.answer = answer
    delivery.walk()
    assert delivery.to.most_in_flight == 5
    assert max(beyond) == 5


def test_one_slow_answer_holds_the_position_but_not_the_others() -> None:
    delivery = Delivery(100, concurrency=4, max_calls=5)
    arrived = threading.Event()

    def answer(user_ids: Sequence[str]) -> None:
        if "u00000" in user_ids:
            assert arrived.wait(30)
            assert not delivery.spans.commits
        if "u00015" in user_ids:
            arrived.set()

    delivery.to.answer = answer
    delivery.walk()
    # Which of the others were accepted before the slow one, nobody knows.
    positions = [commit.position for commit in delivery.spans.commits]
    assert positions[0] in ("u00004", "u00009", "u00014", "u00019")
    assert positions[-1] == "u00099"


def test_requests_keep_to_the_limits_of_calls_and_bytes() -> None:
    delivery = Delivery(40, max_calls=7)
    delivery.walk()
    assert [len(request) for request in sorted(delivery.to.requests)] == [7] * 5 + [5]
    (size,) = {len(body) for member in delivery.to.accepted for body in member.bodies}
    delivery = Delivery(40, max_calls=7, max_bytes=4 * size - 1)
    delivery.walk()
    assert [len(request) for request in sorted(delivery.to.requests)] == [3] * 13 + [1]


@pytest.mark.parametrize(("max_calls", "members"), [(7, 3), (6, 3), (2, 1), (1, 1)])
def test_a_request_never_splits_the_calls_of_a_member(max_calls: int, members: int) -> None:
    delivery = Delivery(40, max_calls=max_calls, with_track=True)
    delivery.walk()
    whole, rest = divmod(40, members)
    assert [len(request) for request in sorted(delivery.to.requests)] == [
        *[members] * whole,
        *([rest] if rest else []),
    ]
    assert all(len(member.bodies) == 2 for member in delivery.to.accepted)
    assert len(delivery.to.bodies()) == 80


def test_bytes_of_all_calls_of_a_member_count() -> None:
    delivery = Delivery(40, with_track=True)
    delivery.walk()
    (size,) = {sum(len(body) for body in member.bodies) for member in delivery.to.accepted}
    delivery = Delivery(40, with_track=True, max_calls=100, max_bytes=4 * size - 1)
    delivery.walk()
    assert [len(request) for request in sorted(delivery.to.requests)] == [3] * 13 + [1]


@pytest.mark.parametrize(("with_track", "calls"), [(False, 200), (True, 400)])
def test_the_rate_counts_calls_and_the_books_count_members(
    waits: list[float], with_track: bool, calls: int
) -> None:
    delivery = Delivery(200, with_track=with_track, rate=10.0, concurrency=1)
    span = delivery.walk(elapsed=lambda: sum(waits))
    assert span.books.accepted == 200
    assert sum(waits) == pytest.approx((calls - 10 - 10) / 10, abs=1.1)


def test_nothing_to_tell_completes_the_span() -> None:
    delivery = Delivery(0)
    delivery.walk()
    assert delivery.spans.completed
    assert not delivery.to.requests


# Refusals


def test_bisecting_finds_exactly_the_poison_members() -> None:
    poison = {"u00003", "u00004", "u00050", "u00099"}

    def answer(user_ids: Sequence[str]) -> None:
        if poison.intersection(user_ids):
            raise BadCalls("request refused (400)")

    delivery = Delivery(100, answer, max_calls=20)
    span = delivery.walk()
    assert {refusal.user_id for refusal in delivery.spans.refusals} == poison
    assert {refusal.reason for refusal in delivery.spans.refusals} == {"request refused (400)"}
    assert sorted(delivery.to.told) == [user for user in users(100) if user not in poison]
    assert (span.books.accepted, span.books.rejected) == (96, 4)
    assert delivery.spans.completed


@pytest.mark.parametrize("with_track", [False, True], ids=["identify", "and track"])
@pytest.mark.parametrize("poison", [[0], [10], [19], [0, 10, 19], [9, 10]], ids=str)
def test_wherever_the_poison_is_in_a_batch_the_others_are_told(
    poison: list[int], with_track: bool
) -> None:
    bad = {users(20)[number] for number in poison}

    def answer(user_ids: Sequence[str]) -> None:
        if bad.intersection(user_ids):
            raise BadCalls("request refused (413)")

    delivery = Delivery(20, answer, max_calls=40, with_track=with_track)
    span = delivery.walk()
    assert delivery.spans.completed
    assert sorted(delivery.to.told) == sorted(set(users(20)) - bad), "each of them once"
    assert (span.books.accepted, span.books.rejected) == (20 - len(bad), len(bad))
    together = ", its 2 calls in one request" if with_track else ""
    assert {(r.user_id, r.reason) for r in delivery.spans.refusals} == {
        (user_id, f"request refused (413){together}") for user_id in bad
    }


def test_a_batch_that_is_too_large_though_each_member_is_fine_is_halved() -> None:
    """A proxy in between may have a smaller limit than Segment."""

    def answer(user_ids: Sequence[str]) -> None:
        if len(user_ids) > 3:
            raise BadCalls("request refused (413)")

    delivery = Delivery(100, answer, max_calls=100, with_track=True)
    span = delivery.walk()
    assert delivery.spans.completed
    assert sorted(delivery.to.told) == users(100)
    assert (span.books.accepted, span.books.rejected) == (100, 0)


@pytest.mark.parametrize("count", [101, 5_000])
def test_when_all_are_poison_the_destination_pauses_and_nothing_counts(count: int) -> None:
    delivery = Delivery(count, refuse_all, max_calls=2_500, concurrency=1, with_track=True)
    error = delivery.fails(DestinationPaused)
    assert error.exit_code == 69
    assert not delivery.spans.commits
    assert len(delivery.to.requests) < 250, "it is found out with few requests"
    delivery.finish()


@settings(max_examples=20)
@given(poison=st.sets(st.integers(0, 79)), refused=st.sets(st.integers(0, 79), max_size=40))
def test_any_mixture_of_refusals_adds_up(poison: set[int], refused: set[int]) -> None:
    bad = {users(80)[number] for number in poison}

    def answer(user_ids: Sequence[str]) -> None:
        if bad.intersection(user_ids):
            raise BadCalls("request refused (400)")

    unsendable = {users(80)[number] for number in refused}
    delivery = Delivery(80, answer, max_calls=9, refused=unsendable)
    span = delivery.walk()
    assert sorted(delivery.to.told) == sorted(set(users(80)) - bad - unsendable)
    assert {refusal.user_id for refusal in delivery.spans.refusals} == bad | unsendable
    assert span.books.rejected == len(bad | unsendable)


def refuse_all(_user_ids: Sequence[str]) -> None:
    raise BadCalls("request refused (400)")


def test_too_many_rejections_pause_before_the_position_moves() -> None:
    delivery = Delivery(1000, refuse_all, max_calls=50, concurrency=1)
    error = delivery.fails(DestinationPaused)
    assert "more than 100" in str(error)
    assert delivery.spans.stored.books.rejected == 100, "two batches of 50 were still allowed"
    delivery = Delivery(1000, refuse_all, max_calls=500, concurrency=1)
    delivery.fails(DestinationPaused)
    assert not delivery.spans.commits
    singles = [request for request in delivery.to.requests if len(request) == 1]
    assert len(singles) == 101, "bisecting goes on although it is known to be too many"
    assert not delivery.spans.refusals
    delivery.finish()


def test_rejections_of_several_batches_add_up_to_too_many() -> None:
    delivery = Delivery(1000, refuse_all, max_calls=30, concurrency=4)
    delivery.fails(DestinationPaused)
    assert delivery.spans.stored.books.rejected <= 100


def test_one_per_cent_of_a_large_span_may_be_rejected() -> None:
    refused = users(150)
    delivery = Delivery(15_000, max_calls=500, refused=refused)
    assert delivery.walk().books.rejected == 150
    delivery = Delivery(14_900, max_calls=500, refused=refused)
    delivery.fails(DestinationPaused)
    assert not delivery.to.requests or "u00000" not in delivery.to.told
    assert delivery.spans.stored.books.rejected == 0


# Faults


def test_a_failed_request_goes_again_with_the_same_ids(waits: list[float]) -> None:
    applied: list[list[str]] = []

    def answer(user_ids: Sequence[str]) -> None:
        if draw.random() < 0.3:
            applied.append(list(user_ids))
            raise RetryLater("no complete answer")

    draw = random.Random(3)
    delivery = Delivery(200, answer)
    delivery.walk()
    assert applied
    assert sorted(delivery.to.told) == users(200)
    for request in applied:
        assert delivery.to.requests.count(request) >= 2
    assert all(0 < wait <= 60 for wait in waits)


def test_waiting_as_asked_does_not_use_up_the_tries(waits: list[float]) -> None:
    asked = first_times(40, lambda: RetryLater("too many requests", after=7.0, slow_down=True))
    delivery = Delivery(10, asked)
    delivery.walk()
    assert sum(wait >= 7 for wait in waits) == 40
    assert delivery.spans.completed


def test_a_destination_that_only_asks_to_wait_pauses_at_last(waits: list[float]) -> None:
    delivery = Delivery(10, first_times(10**6, lambda: RetryLater("busy", after=100.0)))
    error = delivery.fails(DestinationPaused)
    assert error.exit_code == 69
    assert 900 <= sum(waits) <= 1000


def test_a_long_retry_after_pauses_until_then(waits: list[float]) -> None:
    delivery = Delivery(10, first_times(1, lambda: RetryLater("quota used", after=3600.0)))
    error = delivery.fails(DestinationPaused)
    assert isinstance(error, DestinationPaused)
    assert error.seconds == 3600
    assert len(delivery.to.requests) == 1
    assert not waits
    delivery.finish()


def test_ten_tries_without_an_answer_pause(waits: list[float]) -> None:
    delivery = Delivery(100, lambda _: no_answer(), concurrency=1)
    error = delivery.fails(DestinationPaused)
    assert (error.exit_code, type(error)) == (69, DestinationPaused)
    assert len(delivery.to.requests) == send.MAX_ATTEMPTS == 10
    assert waits == sorted(waits), "the waits do not grow"
    delivery.finish()


def no_answer() -> None:
    raise RetryLater("no complete answer in 1 s")


def test_a_429_halves_the_rate_and_acceptances_bring_it_back(waits: list[float]) -> None:
    delivery = Delivery(120, concurrency=1, rate=100.0)
    delivery.to.answer = first_times(1, lambda: RetryLater("busy", after=5.0, slow_down=True))
    delivery.walk(elapsed=lambda: 0.0)
    waits.remove(max(waits))  # as asked by the destination
    # The clock stands still, so each wait is the whole way to that request's turn.
    apart = [later - sooner for sooner, later in pairwise(waits)]
    assert waits[0] == pytest.approx(0.2), "10 calls at 50/s"
    assert apart[-1] == pytest.approx(0.1), "10 calls at 100/s"


@pytest.mark.usefixtures("in_line")
def test_credentials_refused_stop_at_once_and_lose_nothing() -> None:
    refused = of_user("u00035", lambda: CredentialsRefused("key refused (401)"))
    delivery = Delivery(200, refused, concurrency=3)
    error = delivery.fails(CredentialsRefused)
    assert error.exit_code == 77
    assert delivery.spans.stored.position == "u00029", "what came before is committed"
    assert len(delivery.to.requests) <= 3 + 3, "requests went out after the refusal"
    delivery.finish()
    assert delivery.repeats() <= 2 * 10, "only what was in flight goes again"


# A destination that was paused is asked with one request


def beside_the_first(delivery: Delivery) -> list[int]:
    """Filled with the number of requests that started before the first was accepted."""
    beside: list[int] = []

    def answer(_user_ids: Sequence[str]) -> None:
        before = len(delivery.to.requests)
        time.sleep(0.02)
        if not delivery.to.accepted:
            beside.append(len(delivery.to.requests) - before)

    delivery.to.answer = answer
    return beside


def test_a_probe_goes_alone() -> None:
    delivery = Delivery(200)
    beside = beside_the_first(delivery)
    delivery.walk(probing=True)
    assert beside == [0]
    assert delivery.to.most_in_flight == 4, "after the probe all may go"


def test_members_that_are_never_sent_are_no_probe() -> None:
    delivery = Delivery(200, refused=users(30))
    beside = beside_the_first(delivery)
    delivery.walk(probing=True)
    assert beside == [0]


def test_a_probe_that_fails_is_the_only_request() -> None:
    delivery = Delivery(200, first_times(10**6, lambda: CredentialsRefused("key refused (401)")))
    delivery.fails(CredentialsRefused, probing=True)
    assert len(delivery.to.requests) == 1
    delivery.finish()
    assert delivery.repeats() == 0


# Stopping, leases, the store


@pytest.mark.usefixtures("in_line")
def test_a_stop_finishes_what_is_in_flight_and_nothing_more() -> None:
    delivery = Delivery(500, concurrency=3)

    def answer(_user_ids: Sequence[str]) -> None:
        if len(delivery.to.requests) >= 10:  # the tenth may see one more
            delivery.stop.set()
        time.sleep(0.03)

    delivery.to.answer = answer
    span = delivery.walk()
    assert not delivery.spans.completed
    assert len(delivery.to.requests) <= 10 + 3
    assert span.books.accepted == len(delivery.to.told), "a finished call was not committed"
    assert span == delivery.spans.stored
    delivery.stop.clear()
    delivery.finish()
    assert delivery.repeats() == 0


@pytest.mark.usefixtures("in_line")
@pytest.mark.parametrize("rate", [1e9, 100.0])
def test_a_stop_repeats_nothing_although_a_batch_was_late(rate: float) -> None:
    """Who comes after it would have been sent before it, and then it would not be sent."""
    delivery = Delivery(100, rate=rate)

    def late(user_ids: Sequence[str]) -> None:
        if "u00010" in user_ids:
            time.sleep(0.3)

    def stop(user_ids: Sequence[str]) -> None:
        if "u00020" in user_ids:
            delivery.stop.set()

    delivery.to.prepare = late
    delivery.to.answer = stop
    assert 0 < delivery.walk().books.remaining < 100
    delivery.stop.clear()
    delivery.finish()
    assert delivery.repeats() == 0


def test_a_batch_that_holds_what_the_one_before_needs_keeps_nobody() -> None:
    delivery = Delivery(60)
    held = threading.Event()

    def needs(user_ids: Sequence[str]) -> None:
        if "u00000" in user_ids:
            assert held.wait(20)

    delivery.to.prepare = needs
    delivery.to.answer = lambda _: held.set()
    delivery.walk()
    assert delivery.spans.completed
    assert delivery.repeats() == 0


def test_after_a_stop_nothing_is_started() -> None:
    delivery = Delivery(100)
    delivery.stop.set()
    delivery.walk()
    assert not delivery.to.requests


def test_a_stop_ends_a_wait_for_the_rate_or_a_retry() -> None:
    for answer, rate in ((lambda _: no_answer(), 1e9), (lambda _: None, 0.5)):
        delivery = Delivery(500, answer, rate=rate)
        threading.Timer(0.1, delivery.stop.set).start()
        started = time.monotonic()
        delivery.walk()
        assert time.monotonic() - started < 2
        delivery.stop.clear()
        delivery.to.rate = 1e9
        delivery.finish()


@pytest.mark.usefixtures("in_line")
def test_what_pauses_a_destination_is_told_although_we_stop() -> None:
    delivery = Delivery(500, concurrency=3)

    def answer(user_ids: Sequence[str]) -> None:
        if "u00020" in user_ids:
            delivery.stop.set()
            time.sleep(0.5)  # the others have long seen the stop
            raise CredentialsRefused("key refused (401)")

    delivery.to.answer = answer
    delivery.fails(CredentialsRefused)
    assert delivery.spans.stored.position == "u00019"


def test_a_lease_that_may_not_outlive_a_request_sends_nothing() -> None:
    delivery = Delivery(100)
    delivery.lease.seconds = delivery.to.deadline
    delivery.fails(LeaseLost)
    assert not delivery.to.requests
    delivery.lease.seconds = 60.0
    delivery.finish()


def test_a_lease_that_runs_out_ends_the_walk() -> None:
    delivery = Delivery(400, concurrency=2)

    def answer(_user_ids: Sequence[str]) -> None:
        if len(delivery.to.requests) >= 9:  # the ninth may see one more
            delivery.lease.seconds = 0.5
        time.sleep(0.005)

    delivery.to.answer = answer
    delivery.fails(LeaseLost)
    assert len(delivery.to.requests) <= 9 + 1
    delivery.lease.seconds = 60.0
    delivery.finish()


def test_a_lease_is_looked_at_again_before_a_retry(waits: list[float]) -> None:
    delivery = Delivery(10)

    def answer(_user_ids: Sequence[str]) -> None:
        delivery.lease.seconds = 0.5
        raise RetryLater("no complete answer")

    delivery.to.answer = answer
    delivery.fails(LeaseLost)
    assert len(delivery.to.requests) == 1


@pytest.mark.parametrize("failure", [LeaseLost("taken over"), StoreFailed("the disk is full")])
@pytest.mark.parametrize("at", [0, 3])
def test_nothing_is_committed_or_sent_after_a_failed_commit(
    failure: AudienceSyncError, at: int
) -> None:
    delivery = Delivery(200, concurrency=3)
    delivery.spans.fails_at, delivery.spans.failure = at, failure
    failed_at: list[int] = []
    draw = random.Random(at)

    def answer(_user_ids: Sequence[str]) -> None:
        if delivery.spans.tried > at:
            failed_at.append(1)
        time.sleep(draw.random() * 0.004)

    delivery.to.answer = answer
    delivery.fails(type(failure))
    assert delivery.spans.tried == len(delivery.spans.commits) + 1
    assert len(failed_at) <= 2, "requests started after the commit had failed"
    delivery.spans.fails_at = None
    delivery.finish()
    assert delivery.repeats() <= 3 * 10


def test_a_commit_that_fails_at_the_end_stops_those_that_still_wait() -> None:
    """All batches are under way when the first commit fails; the rest must not go on trying."""
    delivery = Delivery(30, concurrency=4)
    delivery.spans.fails_at, delivery.spans.failure = 0, LeaseLost("taken over")

    def answer(user_ids: Sequence[str]) -> None:
        if "u00000" not in user_ids:
            raise RetryLater("unavailable (503)", after=60.0)

    delivery.to.answer = answer
    started = time.monotonic()
    delivery.fails(LeaseLost)
    assert time.monotonic() - started < 10
    assert len(delivery.to.requests) <= 3


@pytest.mark.usefixtures("in_line")
def test_a_walk_that_cannot_read_on_still_commits_what_was_accepted() -> None:
    delivery = Delivery(2 * AHEAD)
    delivery.spans.broken_at = AHEAD + 50
    delivery.spans.failure = StoreFailed("a stored chunk is damaged")
    delivery.fails(StoreFailed)
    assert delivery.spans.stored.books.accepted == len(delivery.to.told) > 0
    delivery.spans.broken_at = None
    delivery.finish()
    assert delivery.repeats() == 0


def test_no_transaction_is_open_while_a_request_is_under_way(tmp_path: Path) -> None:
    """Another connection can write to the SQLite store at any time, without waiting."""
    path = tmp_path / "state.db"
    database = Database(f"sqlite:///{path}")
    migrate.upgrade(database)
    Log(database, rows_per_chunk=100).put(people(*users(300)))
    writes: list[int] = []

    def answer(_user_ids: Sequence[str]) -> None:
        with closing(sqlite3.connect(path, timeout=2, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("UPDATE audience SET name = 'seen'")
            other.execute("COMMIT")
            (busy, *_) = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            writes.append(busy)

    to = FakeDestination(answer=answer, concurrency=1, max_calls=30)
    spans = Spans(database, lambda: datetime.now(UTC))
    with Leases(database).hold("deliver:fake:initial") as lease:
        (waiting,) = spans.waiting("fake", [VIP])
        span = spans.open(waiting, "fake", tell=EVERYTHING, limits=Limits(), lease=lease)
        walk = Walk(
            destination=to,
            spans=spans,
            lease=lease,
            pace=send.SharedPace(1e9, time.monotonic),
            allowance=allowance(to, lease),
            stop=threading.Event(),
            installation="installation",
        )
        (walked,) = walk.deliver([span])
        assert walked.books.remaining == 0
    assert writes == [0] * 10
    database.close()
