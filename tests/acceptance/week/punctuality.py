"""Whether captures and deliveries were on time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.acceptance.week.configuration import MAIN, SECOND
from tests.acceptance.week.evidence import Call, Capture, Span, Stored
from tests.acceptance.week.run import Evidence
from tests.acceptance.week.truth import DONE

LATE = 60.0
"""Seconds beyond the cadence (P14), and until a due delivery begins (P9)."""

A_SECOND = 1.0
"""What is due within a second is due at its beginning."""

FROZEN = 75.0
"""Seconds until what a stopped process holds is another's: its lease, and a look or two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """How long after its snapshot was there a change was first and last told."""

    key: str
    destination: str
    first: float
    last: float
    beside_initial: bool
    after_down: bool
    beside_stop: bool
    allowed: float


@dataclass(kw_only=True)
class Lateness:
    """Seconds from due to begun and to captured."""

    begun: list[float] = field(default_factory=list)
    captured: list[float] = field(default_factory=list)
    calm: list[float] = field(default_factory=list)
    """To captured, where nothing went wrong from a minute before."""
    beside_stop: list[float] = field(default_factory=list)
    """To captured, where a process was stopped meanwhile."""


def captures_of(stored: Stored) -> dict[str, list[Capture]]:
    found: dict[str, list[Capture]] = defaultdict(list)
    for capture in sorted(stored.captures, key=lambda capture: capture.started):
        found[capture.key].append(capture)
    return found


def nobody_is_late(week: Evidence, stored: Stored) -> Iterator[str]:
    found = captures_of(stored)
    for key, planned in week.audiences.items():
        begin = week.began + (week.size.late if planned.comes == 2 else 0.0)
        ends = [capture.ended for capture in found[key] if capture.outcome in DONE]
        if not ends or ends[0] > begin + LATE:
            yield f"{key}: not captured within {LATE:.0f} s of the start"
        for one, after in zip(ends, [*ends[1:], week.ended], strict=True):
            allowed = LATE + _frozen(week, f"capture:{key}", one, after)
            allowed += week.without_any(one, after)
            if after - one > planned.longest + allowed:
                yield f"{key}: {after - one:.1f} s between captures, every {planned.every}"


def _frozen(week: Evidence, lease: str, start: float, end: float) -> float:
    """Seconds for which ``lease`` may have been a stopped process's, who else ``LATE`` is for."""
    held = (f for f in week.faults if f.kind == "stop" and lease in f.held)
    return FROZEN - LATE if any(f.at < end and start < f.until for f in held) else 0.0


def captures_never_overlap(stored: Stored) -> Iterator[str]:
    for key, captures in captures_of(stored).items():
        for one, after in pairwise(captures):
            if after.started < one.ended:
                yield f"{key}: captures for {one.cycle_time} and {after.cycle_time} overlap"
            if after.cycle_time <= one.cycle_time:
                yield f"{key}: captured for {after.cycle_time} after {one.cycle_time}"


def nobody_is_early(week: Evidence, stored: Stored) -> Iterator[str]:
    """Whatever was killed or started meanwhile, and however many there are to capture it."""
    for key, captures in captures_of(stored).items():
        planned = week.audiences[key]
        for one, after in pairwise(captures):
            gap = (after.cycle_time - one.cycle_time).total_seconds()
            if gap < planned.shortest - A_SECOND:
                yield f"{key}: captured again after {gap:.0f} s, every {planned.every}"


def both_lanes_were_at_work(week: Evidence, stored: Stored, calls: Sequence[Call]) -> Iterator[str]:
    """While the initial sync of the largest audience went on, changes of others were told."""
    long = initial_sync(week, stored)
    during = (long.opened, long.ended or week.ended)
    lanes = {(s.destination, s.key, s.timestamp): s.lane for s in stored.spans}
    beside = [
        call
        for call in calls
        if during[0] < call.time < during[1]
        and call.destination == MAIN
        and lanes.get((MAIN, call.key, call.timestamp)) == "incremental"
    ]
    if not beside:
        yield f"nothing was told beside the initial sync, from {during[0]:.0f} to {during[1]:.0f}"
    if not any(during[0] < capture.started < during[1] for capture in stored.captures):
        yield "nothing was captured beside the initial sync"


def lateness(week: Evidence, stored: Stored) -> Lateness:
    found = Lateness()
    for key, captures in captures_of(stored).items():
        for one, after in pairwise(captures):
            due = week.watcher.due.get((key, one.cycle_time))
            if due is None:
                continue
            begun, captured = after.started - due.timestamp(), after.ended - due.timestamp()
            found.begun.append(begun)
            found.captured.append(captured)
            near = [f for f in week.faults if f.at < after.ended and f.until > one.ended - LATE]
            if not near:
                found.calm.append(captured)
            if any(fault.kind == "stop" and fault.until > due.timestamp() for fault in near):
                found.beside_stop.append(captured)
    return found


def initial_sync(week: Evidence, stored: Stored) -> Span:
    """That of the largest audience."""
    largest = max(week.size.audiences, key=lambda planned: planned.members)
    return next(s for s in stored.spans if (s.key, s.lane) == (largest.key, "initial"))


def deliveries(week: Evidence, stored: Stored, calls: Sequence[Call]) -> list[Delivery]:
    """Of each snapshot with something to tell to a place that was told the first one."""
    times: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for call in calls:
        if call.time:
            times[call.destination, call.key, call.timestamp].append(call.time)
    spans: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for span in stored.spans:
        spans[span.key, span.destination].append(span)
    long = initial_sync(week, stored)
    found = []
    for capture in stored.captures:
        if capture.snapshot is None:
            continue
        for destination in set(week.audiences[capture.key].destinations) & {MAIN, SECOND}:
            of_pair = spans[capture.key, destination]
            done = of_pair[0].ended if of_pair else None
            if done is None or done > capture.ended:
                continue  # its initial sync was not over
            span = next((s for s in of_pair if s.to_seq >= capture.snapshot.seq), None)
            said = times.get((destination, capture.key, span.timestamp)) if span else None
            if said:
                found.append(_delivery(week, capture, destination, said, long))
    return found


def _delivery(
    week: Evidence, capture: Capture, destination: str, said: Sequence[float], long: Span
) -> Delivery:
    down = [f for f in week.faults if f.kind == "down" and f.address == destination]
    return Delivery(
        key=capture.key,
        destination=destination,
        first=min(said) - capture.ended,
        last=max(said) - capture.ended,
        beside_initial=destination == MAIN
        and long.opened < capture.ended < (long.ended or week.ended),
        after_down=any(f.at < max(said) and capture.ended < f.until for f in down),
        beside_stop=any(
            f.kind == "stop" and f.at < max(said) and capture.ended < f.until for f in week.faults
        ),
        allowed=LATE
        + week.without_any(capture.ended, min(said))
        + _frozen(week, f"deliver:{destination}:incremental", capture.ended, min(said)),
    )


def deliveries_begin_on_time(found: Sequence[Delivery]) -> Iterator[str]:
    """Beside the initial sync. Otherwise they may wait for each other: a lane has one rate."""
    for one in found:
        if one.beside_initial and one.first > one.allowed:
            yield f"{one.key} to {one.destination}: begun {one.first:.1f} s after its snapshot"
