"""P11 at its edges: the last value that goes, the first that is held."""

from __future__ import annotations

import pytest

from audience_sync.domain.guard import Counts, Limits, Window, holds_initial, judge, percent


def counts(previous: int, *, entered: int = 0, exited: int = 0) -> Counts:
    return Counts(
        previous=previous,
        entered=entered,
        exited=exited,
        updated=0,
        members=previous + entered - exited,
    )


def reasons(
    found: Counts,
    limits: Limits | None = None,
    *,
    window: tuple[int, int] | None = None,
    first: bool = False,
) -> tuple[str, ...]:
    """``window``: members at its start, unapproved exits; by default a quiet, larger audience."""
    at_start, exits = window or (100 * found.previous, 0)
    return judge(
        found,
        Window(members_at_start=at_start, unapproved_exits=exits),
        limits or Limits(),
        first=first,
    ).reasons


@pytest.mark.parametrize(
    ("previous", "goes", "why"),
    [
        (10_000, 2_000, "20 %"),
        (1_000, 200, "20 % is more than the floor"),
        (500, 100, "20 % is the floor"),
        (300, 100, "the floor is more than 20 %"),
        (200, 100, "half is the floor"),
        (101, 50, "half of a small audience, rounded down"),
        (40, 20, "half of a small audience"),
        (20, 10, "half is ten"),
        (19, 9, "nine exits never hold"),
        (12, 9, "nine exits never hold, though half is six"),
        (10, 9, "nine exits never hold, one member stays"),
    ],
)
def test_exits_up_to_the_limit_go_and_one_more_is_held(previous: int, goes: int, why: str) -> None:
    assert reasons(counts(previous, exited=goes)) == (), why
    (reason, *_) = reasons(counts(previous, exited=goes + 1, entered=5))
    assert "would leave (limit 20 %)" in reason, why


def test_limits_are_exact_where_floats_are_not() -> None:
    limits = Limits(max_exits=0.29, max_exits_24h=1.0)
    assert reasons(counts(800, exited=232), limits) == ()
    assert reasons(counts(800, exited=233), limits)


def test_an_audience_may_change_more_than_once_a_day() -> None:
    """Who looked at a cart in the last hour, say."""
    hourly = Limits(max_exits=1.0, max_exits_24h=24.0)
    day = Window(members_at_start=1_000, unapproved_exits=23_100)
    assert judge(counts(1_000, exited=900, entered=900), day, hourly, first=False).reasons == ()
    (reason,) = judge(counts(1_000, exited=901, entered=901), day, hourly, first=False).reasons
    assert reason == "2400.1 % would have left within 24 h (limit 2400 %)"


def test_the_limits_of_an_audience_replace_the_general_ones() -> None:
    strict = Limits(max_exits=0.01, floor=0)
    assert reasons(counts(2_000, exited=20), strict) == ()
    assert reasons(counts(2_000, exited=21), strict) == ("1.1 % would leave (limit 1 %)",)


@pytest.mark.parametrize("previous", [1, 9, 10, 5_000])
def test_an_empty_source_is_held_however_few_would_leave(previous: int) -> None:
    (reason, *_) = reasons(counts(previous, exited=previous))
    assert reason == f"the source is empty: all {previous:,} would leave"


def test_everybody_replaced_is_not_an_empty_source() -> None:
    assert reasons(counts(9, exited=9, entered=1)) == ()


def test_an_empty_source_of_an_empty_audience_goes() -> None:
    assert reasons(counts(0)) == ()


@pytest.mark.parametrize(
    ("at_start", "before", "now", "held"),
    [
        (1_000, 300, 100, False),
        (1_000, 300, 101, True),
        (1_000, 400, 0, False),
        (1_000, 900, 0, False),
        (1_000, 900, 1, True),
        (100, 45, 5, False),
        (100, 45, 6, True),
        (12, 5, 4, False),
        (12, 5, 5, True),
        (0, 0, 9, False),
    ],
    ids=[
        "40 % in all",
        "one more",
        "no exit now",
        "no exit now, far too many before",
        "far too many before, one now",
        "half of a small audience",
        "one more than half",
        "nine in all never hold",
        "ten in all",
        "empty at the start",
    ],
)
def test_a_drip_of_exits_within_24_hours(at_start: int, before: int, now: int, held: bool) -> None:
    found = reasons(counts(1_000, exited=now), window=(at_start, before))
    assert bool(found) is held
    assert all("within 24 h (limit 40 %)" in reason for reason in found)


@pytest.mark.parametrize(
    ("previous", "goes"), [(1, 1_000), (100, 1_000), (500, 1_000), (501, 1_002), (5_000, 10_000)]
)
def test_entries_up_to_the_limit_go_and_one_more_is_held(previous: int, goes: int) -> None:
    assert reasons(counts(previous, entered=goes)) == ()
    (reason,) = reasons(counts(previous, entered=goes + 1))
    assert f"{goes + 1:,} would enter an audience of {previous:,} (limit 200 %)" in reason


def test_any_number_may_enter_an_audience_without_members() -> None:
    assert reasons(counts(0, entered=5_000_000)) == ()


def test_a_first_capture_is_never_held() -> None:
    assert reasons(counts(0, entered=5_000_000), first=True) == ()


def test_every_reason_is_given() -> None:
    assert len(reasons(counts(1_000, exited=900), window=(1_000, 0))) == 2


def test_an_empty_source_is_reason_enough() -> None:
    assert len(reasons(counts(1_000, exited=1_000), window=(1_000, 0))) == 1


def test_a_first_delivery_beyond_the_limit_asks() -> None:
    assert holds_initial(100_000, Limits()) is None
    assert holds_initial(100_001, Limits()) == ("first delivery to 100,001 members (limit 100,000)")


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.314, "31.4 %"),
        (0.2, "20 %"),
        (2.0, "200 %"),
        (1.0, "100 %"),
        (0, "0 %"),
        (0.005, "0.5 %"),
    ],
)
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text
