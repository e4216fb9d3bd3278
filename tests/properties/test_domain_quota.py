from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from audience_sync.domain.quota import Lane, Pace, parse_rate, share

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
        at = now + pace.wait(amount, now)
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
