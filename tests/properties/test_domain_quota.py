from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audience_sync.domain.quota import (
    LATE_AT_MOST,
    LONGEST,
    SAVED_UP,
    Lane,
    Pace,
    Turn,
    block_of,
    done_in,
    next_day,
    parse_quota,
    parse_rate,
    quota_left,
    quota_of,
    share,
)
from tests.fakes.pace import left

BATCHES = st.lists(
    st.tuples(
        st.floats(0, 5, allow_nan=False), st.integers(1, 100), st.sampled_from(["", "429", "ok"])
    ),
    min_size=1,
    max_size=40,
)


def sent(
    pace: Pace, batches: list[tuple[float, int, str]], *, waits: bool
) -> list[tuple[float, int]]:
    """When each batch goes. ``waits``: whoever asks next comes after this one has gone."""
    now, gone = 0.0, []
    for pause, amount, answer in batches:
        now += pause
        at = now + left(pace, amount, now)
        gone.append((at, amount))
        now = at if waits else now
        if answer == "429":
            pace.slow_down()
        elif answer == "ok":
            pace.climb()
        assert 0 < pace.current <= pace.rate
    return gone


@given(st.floats(0.5, 1000), BATCHES, st.booleans())
def test_no_window_sees_more_than_the_rate_one_second_and_one_batch(
    rate: float, batches: list[tuple[float, int, str]], waits: bool
) -> None:
    gone = sent(Pace(rate=rate), batches, waits=waits)
    largest = max(amount for _, amount, _ in batches)
    for start, _ in gone:
        for end, _ in gone:
            through = sum(amount for at, amount in gone if start <= at <= end)
            assert through <= rate * max(end - start, 0) + rate + largest + 1e-6


@given(st.floats(0.5, 1000), st.lists(st.integers(1, 100), min_size=1, max_size=40))
def test_whoever_always_has_work_gets_the_whole_rate(rate: float, amounts: list[int]) -> None:
    gone = sent(Pace(rate=rate), [(0.0, amount, "") for amount in amounts], waits=True)
    before = sum(amounts[:-1])
    assert gone[-1][0] <= max(0.0, before / rate - 1) + 1e-6


@given(st.floats(0, 1))
def test_the_shares_of_both_lanes_are_never_more_than_one(reserve: float) -> None:
    shares = [share(lane, reserve=reserve, initial_open=True) for lane in Lane]
    assert all(0 <= one <= 1 for one in shares)
    assert sum(shares) <= 1


@given(st.integers(1, 10**9), st.sampled_from([("s", 1), ("min", 60), ("h", 3600)]))
def test_a_rate_is_read_back(number: int, unit: tuple[str, int]) -> None:
    name, seconds = unit
    assert parse_rate(f"{number}/{name}") == number / seconds


@given(
    st.floats(0.5, 20),
    st.lists(st.integers(1, 40), min_size=4, max_size=12),
    st.floats(0, 10),
    st.floats(0, 100),
    st.randoms(use_true_random=False),
)
def test_what_a_standstill_missed_is_not_made_up_for(
    rate: float, amounts: list[int], begins: float, lasts: float, order: random.Random
) -> None:
    """All who wait wake at once, in any order, and look again until it is their time."""
    pace = Pace(rate)
    waiting = [(pace.turn(amount, 0.0), amount) for amount in amounts]
    gone: list[tuple[float, int]] = []

    def goes(turn: Turn, amount: int, now: float) -> bool:
        pace.catch_up(now)
        if turn.at > now:
            return False
        pace.gone(turn)
        gone.append((now, amount))
        return True

    waiting = [one for one in waiting if one[0].at > begins or not goes(*one, max(one[0].at, 0.0))]
    now = begins + lasts
    while waiting:
        order.shuffle(waiting)
        waiting = [one for one in waiting if not goes(*one, now)]
        now = min((turn.at for turn, _ in waiting), default=now)
    largest = max(amounts)
    for start, _ in gone:
        for end, _ in gone:
            through = sum(amount for at, amount in gone if start <= at <= end)
            most = rate * (max(end - start, 0) + SAVED_UP + LATE_AT_MOST) + largest
            assert through <= most + 1e-6
    assert len(gone) == len(amounts)


# A rate that changes while pieces wait

CHANGES = st.lists(
    st.tuples(st.floats(0, 5), st.one_of(st.integers(1, 100), st.sampled_from([0.2, 0.8, 1.0]))),
    min_size=1,
    max_size=40,
)


@given(st.floats(0.5, 1000), CHANGES)
def test_pieces_that_wait_keep_to_a_rate_that_falls(
    rate: float, steps: list[tuple[float, float]]
) -> None:
    """Whole numbers ask for pieces, fractions are the lane's new share of the rate."""
    pace, now, asked, rates = Pace(rate), 0.0, [], [(0.0, rate)]
    for pause, what in steps:
        now += pause
        if isinstance(what, int):
            asked.append((pace.turn(what, now), now, what))
        else:
            pace.change(rate * what, now)
            rates.append((now, rate * what))
        assert pace.current <= pace.rate
    gone = [(max(turn.at, at), amount) for turn, at, amount in asked]
    assert gone == sorted(gone, key=lambda pair: pair[0]), "overtaken"
    largest = max((amount for _, amount in gone), default=0)
    for start, _ in gone:
        for end, _ in gone:
            through = sum(amount for at, amount in gone if start <= at <= end)
            allowed = _allowed(rates, start, max(start, end))
            assert through <= allowed + rate + largest + 1e-6


def _allowed(rates: list[tuple[float, float]], start: float, end: float) -> float:
    """The pieces of all shares together between two times."""
    ends = [*(at for at, _ in rates[1:]), float("inf")]
    return sum(
        rate * max(min(end, until) - max(start, since), 0.0)
        for (since, rate), until in zip(rates, ends, strict=True)
    )


@given(st.floats(0.5, 1000), CHANGES, st.integers(0, 10))
def test_what_is_given_back_is_as_if_it_had_never_been_asked_for(
    rate: float, steps: list[tuple[float, float]], more: int
) -> None:
    """All who wait give back at once, in any order."""
    pace, without, now, asked = Pace(rate), Pace(rate), 0.0, []
    for pause, what in steps:
        now += pause
        if isinstance(what, int):
            asked.append((pace.turn(what, now), what, now))
    for turn, amount, at in asked:
        if turn.at <= now:
            without.turn(amount, at)
    for turn, _, _ in sorted(asked, key=lambda one: id(one[0])):
        if turn.at > now:
            pace.give_back(turn)
    for amount in range(1, more + 1):
        assert left(pace, amount, now) == pytest.approx(left(without, amount, now), abs=1e-6)


def test_what_is_given_back_after_the_rate_fell_gives_no_more_than_there_is() -> None:
    pace = Pace(10.0)
    pace.turn(100, 0.0)
    later = pace.turn(50, 0.0)
    assert (later.at, later.lasts) == (9.0, 5.0)
    pace.change(5.0, 0.0)
    assert (later.at, later.lasts) == (18.0, 10.0)
    pace.give_back(later)
    assert left(pace, 1, 0.0) == 18.0


@given(st.floats(1, 1000), st.integers(0, 20), st.floats(0.01, 0.99))
def test_a_share_is_of_what_is_slowed_down_too(rate: float, refused: int, part: float) -> None:
    pace = Pace(rate)
    for _ in range(refused):
        pace.slow_down()
    slowed = pace.current / pace.rate
    pace.change(rate * part, 0.0)
    assert pace.current / pace.rate == pytest.approx(slowed)
    pace.change(rate, 0.0)
    assert pace.current == pytest.approx(rate * slowed)


# Quotas

RESERVES = st.floats(0.01, 0.99)
WISHES = st.lists(st.tuples(st.sampled_from(Lane), st.integers(1, 500)), max_size=60)


def lived(quota: int, reserve: float, wishes: list[tuple[Lane, int]]) -> dict[Lane, int]:
    """A day in which lanes reserve in this order what they wish for, or what is left."""
    used: dict[Lane, int] = {}
    for lane, wish in wishes:
        left = quota_left(lane, quota=quota, reserve=reserve, used=used)
        assert left >= 0
        used[lane] = used.get(lane, 0) + min(wish, left)
    return used


@given(st.integers(1, 5000), RESERVES, WISHES)
def test_both_lanes_together_never_use_more_than_the_quota(
    quota: int, reserve: float, wishes: list[tuple[Lane, int]]
) -> None:
    used = lived(quota, reserve, wishes)
    assert sum(used.values()) <= quota
    assert used.get(Lane.INITIAL, 0) <= quota * (1 - reserve) + 1e-6


@given(st.integers(1, 5000), RESERVES, WISHES)
def test_what_is_unused_of_the_reserve_waits_for_changes(
    quota: int, reserve: float, wishes: list[tuple[Lane, int]]
) -> None:
    used = lived(quota, reserve, wishes)
    left = quota_left(Lane.INCREMENTAL, quota=quota, reserve=reserve, used=used)
    assert left == quota - sum(used.values()), "changes may use whatever is left"
    assert left >= quota * reserve - used.get(Lane.INCREMENTAL, 0) - 1e-6


@given(st.integers(1, 5000), RESERVES, WISHES)
def test_nothing_is_kept_from_the_initial_lane_but_the_reserve(
    quota: int, reserve: float, wishes: list[tuple[Lane, int]]
) -> None:
    used = lived(quota, reserve, [*wishes, (Lane.INITIAL, quota)])
    kept = max(quota * reserve - used.get(Lane.INCREMENTAL, 0), 0)
    assert quota - sum(used.values()) < kept + 1
    alone = quota_of(Lane.INITIAL, quota=quota, reserve=reserve)
    assert alone == quota_left(Lane.INITIAL, quota=quota, reserve=reserve, used={})


@given(st.integers(1, 10**6), st.integers(1, 10**9), st.floats(1 / 3600, 10**6))
def test_a_block_is_what_is_needed_or_a_small_part_of_the_day(
    wanted: int, quota: int, rate: float
) -> None:
    block = block_of(wanted, quota=quota, rate=rate)
    assert block >= wanted
    assert block == wanted or block <= min(quota / 100, rate * 5 + 1)


TIMES = st.integers(0, 10**9).map(
    lambda thousandths: datetime(2026, 10, 7, tzinfo=UTC) + timedelta(seconds=thousandths / 1000)
)


@given(
    st.integers(0, 3000), TIMES, st.floats(0.001, 10), st.integers(1, 1000), st.integers(0, 1000)
)
def test_a_forecast_says_what_a_walk_through_the_days_takes(
    calls: int, now: datetime, rate: float, per_day: int, left: int
) -> None:
    """Day by day: as much as the quota and the rate give, then midnight."""
    at, rest, today_left = now, calls, left
    while True:
        midnight = next_day(at)
        today = min(today_left, int(rate * (midnight - at).total_seconds()))
        if rest <= today or at - now > LONGEST:
            at += timedelta(seconds=rest / rate)
            break
        rest, at, today_left = rest - today, midnight, per_day
    expected = min(at - now, LONGEST).total_seconds()
    found = done_in(calls, now, rate=rate, per_day=per_day, left=left).total_seconds()
    assert found == pytest.approx(expected, abs=1e-3)


@given(st.integers(0, 10**12), TIMES, st.floats(1 / 3600, 10**6), st.integers(1, 10**11))
def test_a_forecast_is_never_too_far_away_to_be_told(
    calls: int, now: datetime, rate: float, per_day: int
) -> None:
    free = done_in(calls, now, rate=rate)
    bound = done_in(calls, now, rate=rate, per_day=per_day, left=0)
    assert timedelta(0) <= free <= LONGEST
    assert free - timedelta(milliseconds=1) <= bound <= LONGEST


@given(st.integers(1, 10**11), st.sampled_from(["day", "d"]))
def test_a_quota_is_read_back(number: int, unit: str) -> None:
    assert parse_quota(f"{number}/{unit}") == number
    assert parse_quota(f" {number:_} / {unit} ") == number
