from __future__ import annotations

import pytest

from audience_sync.domain.quota import Lane, Pace, parse_rate, share


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1000/s", 1000.0),
        ("1_000/s", 1000.0),
        (" 10 / second ", 10.0),
        ("600/min", 10.0),
        ("0.5/s", 0.5),
        ("3600/h", 1.0),
        ("1/hour", 1 / 3600),
    ],
)
def test_parse_rate(text: str, rate: float) -> None:
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize(
    "text", ["", "10", "/s", "10/", "10/day", "-1/s", "ten/s", "10/s/s", "1,5/s"]
)
def test_a_rate_without_a_number_and_a_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a number and a unit"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["0/s", "0.0/min"])
def test_a_rate_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="above zero"):
        parse_rate(text)


def test_the_reserve_is_kept_while_an_initial_span_is_open() -> None:
    assert share(Lane.INCREMENTAL, reserve=0.2, initial_open=True) == 0.2
    assert share(Lane.INITIAL, reserve=0.2, initial_open=True) == 0.8
    assert share(Lane.INCREMENTAL, reserve=0.2, initial_open=False) == 1.0


def test_a_full_bucket_goes_at_once_and_what_follows_waits_for_the_debt() -> None:
    pace = Pace(rate=10)
    assert pace.wait(10, 0.0) == 0.0
    assert pace.wait(25, 0.0) == 0.0
    assert pace.wait(1, 0.0) == pytest.approx(2.5)
    assert pace.wait(1, 1.0) == pytest.approx(1.6)


def test_a_long_pause_saves_up_one_second_and_no_more() -> None:
    pace = Pace(rate=10)
    pace.wait(10, 0.0)
    pace.wait(10, 3600.0)
    assert pace.wait(1, 3600.0) == 0.0
    assert pace.wait(1, 3600.0) == pytest.approx(0.1)


def test_a_429_halves_the_rate_and_empties_the_bucket() -> None:
    pace = Pace(rate=64)
    assert pace.wait(1, 0.0) == 0.0
    pace.slow_down()
    assert pace.current == 32
    assert pace.wait(32, 0.0) == 0.0
    assert pace.wait(1, 0.0) == pytest.approx(1.0)


def test_who_asks_after_the_rate_has_climbed_goes_after_those_who_already_wait() -> None:
    pace = Pace(rate=1)
    pace.wait(1, 0.0)
    for _ in range(6):
        pace.slow_down()
    waits = [pace.wait(10, 0.0), pace.wait(10, 0.0)]
    for _ in range(20):
        pace.climb()
    waits += [pace.wait(10, 0.0), pace.wait(10, 0.0)]
    assert waits == pytest.approx([0.0, 640.0, 1280.0, 1290.0])


def test_the_rate_never_falls_below_a_64th_and_climbs_back_to_the_configured_one() -> None:
    pace = Pace(rate=64)
    for _ in range(50):
        pace.slow_down()
    assert pace.current == 1
    climbed = []
    for _ in range(50):
        pace.climb()
        climbed.append(pace.current)
    assert climbed == sorted(climbed)
    assert climbed[0] == pytest.approx(1 + 64 * 0.05)
    assert climbed[-1] == 64
