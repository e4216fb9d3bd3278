"""When the daemon captures next, for any history of captures and any clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from audience_sync.domain.schedule import is_due, parse_every
from audience_sync.scheduler.agenda import LONG_AGO, Capturing, due_at, next_cycle

START = datetime(2026, 1, 31, tzinfo=UTC)
TIMES = st.timedeltas(timedelta(days=-400), timedelta(days=400)).map(lambda delta: START + delta)
CAPTURINGS = st.builds(Capturing, last=st.none() | TIMES, due=st.none() | TIMES)


@given(CAPTURINGS, TIMES)
def test_an_alarm_rings_when_a_capture_is_due_and_not_before(
    capturing: Capturing, clock: datetime
) -> None:
    """To the second, which is what a cycle time has."""
    second = clock.replace(microsecond=0)
    is_now = is_due(second, last=capturing.last, due=capturing.due, clock=clock)
    assert (due_at(capturing, clock) <= second) == is_now


@given(CAPTURINGS, TIMES, st.timedeltas(timedelta(), timedelta(days=30)))
def test_an_alarm_stays_where_it_is_while_time_passes(
    capturing: Capturing, clock: datetime, passed: timedelta
) -> None:
    """Or it would be set anew at every look, but where the last capture was in the future."""
    later = clock + passed
    if capturing.last is None or not clock < capturing.last <= later:
        assert due_at(capturing, clock) == due_at(capturing, later)


@given(st.lists(CAPTURINGS, max_size=6), TIMES)
def test_a_cycle_begins_with_the_first_who_is_due(
    capturings: list[Capturing], clock: datetime
) -> None:
    at = next_cycle(capturings, clock)
    assert at == min((due_at(capturing, clock) for capturing in capturings), default=None)


@given(
    st.lists(st.timedeltas(timedelta(hours=-5), timedelta(hours=5)), max_size=12),
    st.floats(0, 1, exclude_max=True),
)
def test_no_clock_makes_an_audience_late_by_more_than_its_cadence(
    jumps: list[timedelta], draw: float
) -> None:
    """P14: time passes by minutes, and the clock is set now and then."""
    every = parse_every("2h..3h")
    clock, passed = START, timedelta()
    capturing, captured_after = Capturing(), timedelta()
    for jump in [timedelta(), *jumps]:
        clock += jump
        for _ in range(60):
            if due_at(capturing, clock) <= clock:
                assert passed - captured_after <= 2 * every.longest + timedelta(minutes=1)
                captured_after = passed
                capturing = Capturing(last=clock, due=every.next_after(clock, draw))
            clock += timedelta(minutes=1)
            passed += timedelta(minutes=1)
    assert capturing.last is not None
    assert capturing.last > LONG_AGO
