"""Who told what when: repeats, lanes, takeovers."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.acceptance.week.configuration import BATCH, CONCURRENCY
from tests.acceptance.week.daemons import Fault
from tests.acceptance.week.evidence import Call, LaneRun, Stored
from tests.acceptance.week.run import Evidence

UNDER_WAY = 2.0
"""Seconds within which a request that was written at a kill arrives."""

UNCOMMITTED = 10.0
"""Seconds for which a call may be accepted and not yet written down."""

Where = tuple[str, str]
"""Destination and lane."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeat:
    """A call that came again."""

    call: Call
    lane: str
    fault: Fault | None
    age: float
    """Seconds between the first acceptance and the fault."""


def lanes_of(stored: Stored) -> dict[tuple[str, str, str], str]:
    return {(span.destination, span.key, span.timestamp): span.lane for span in stored.spans}


def repeats(week: Evidence, stored: Stored, calls: Sequence[Call]) -> list[Repeat]:
    lanes, before, found = lanes_of(stored), {}, []
    for call in calls:
        first = before.get((call.destination, call.id))
        if first is not None:
            lane = lanes.get((call.destination, call.key, call.timestamp), "none")
            fault = _cause(week.faults, first, call)
            age = fault.at - first.time if fault else 0.0
            found.append(Repeat(call=call, lane=lane, fault=fault, age=age))
        before[call.destination, call.id] = call
    return found


def _cause(faults: Sequence[Fault], first: Call, again: Call) -> Fault | None:
    """The fault for which what ``first`` was accepted for was not written down."""
    for fault in faults:
        if not first.peer:  # of a file's lines no time is known
            return fault
        if fault.kind == "down":
            ours = fault.address == first.destination
            if ours and fault.at - UNDER_WAY <= first.time <= fault.until <= again.time:
                return fault
        elif fault.address == first.peer and first.time - UNDER_WAY <= fault.at <= again.time:
            return fault
    return None


def repeats_have_a_cause(found: Sequence[Repeat]) -> Iterator[str]:
    """None in a stretch without faults; after one at most what was in flight."""
    for repeat in found:
        call = repeat.call
        where = f"{call.key} at {call.destination} ({repeat.lane}), {call.timestamp}"
        if repeat.fault is None:
            yield f"told twice without a fault: {where}, again at {call.time:.1f} by {call.peer}"
        elif call.peer and repeat.age > UNCOMMITTED:
            yield f"told twice, though accepted {repeat.age:.1f} s before the fault: {where}"
    for (_, destination, lane), count in after_each(found).items():
        if count > CONCURRENCY * BATCH:
            yield f"{count} calls repeated after one fault at {destination} ({lane})"


def after_each(found: Sequence[Repeat]) -> dict[tuple[float, str, str], int]:
    """How many calls came again after each fault, by its time, destination and lane.

    Of a file's lines nobody knows when they were written.
    """
    ids: dict[tuple[float, str, str], set[str]] = defaultdict(set)
    for repeat in found:
        if repeat.fault is not None and repeat.call.peer:
            ids[repeat.fault.at, repeat.call.destination, repeat.lane].add(repeat.call.id)
    return {where: len(of) for where, of in ids.items()}


def one_process_at_a_time(week: Evidence, stored: Stored, calls: Sequence[Call]) -> Iterator[str]:
    """A lane's runs never overlap, and all calls in one run come from one process."""
    lanes = lanes_of(stored)
    runs: dict[Where, list[LaneRun]] = defaultdict(list)
    for run in sorted(stored.runs, key=lambda run: run.started):
        runs[run.destination, run.lane].append(run)
    for where, of_lane in runs.items():
        for one, after in pairwise(of_lane):
            if one.ended is None or one.ended > after.started + 0.05:
                yield f"{where}: runs {one.id} and {after.id} overlap"
    starts = {where: [run.started for run in of_lane] for where, of_lane in runs.items()}
    senders: dict[int, set[str]] = defaultdict(set)
    for call in calls:
        if not call.peer or _was_under_way(week, call):
            continue
        where = call.destination, lanes.get((call.destination, call.key, call.timestamp), "none")
        index = bisect_right(starts.get(where, []), call.time) - 1
        run = runs[where][index] if index >= 0 else None
        if run is None or (run.ended is not None and call.time > run.ended + 0.05):
            yield f"{where}: {call.key} told outside of any run, at {call.time:.2f} by {call.peer}"
        else:
            senders[run.id].add(call.peer)
    for run_id, peers in senders.items():
        if len(peers) > 1:
            yield f"run {run_id} has calls of {sorted(peers)}"


def _was_under_way(week: Evidence, call: Call) -> bool:
    """Written by a process that was killed, or stopped, before it arrived."""
    return any(
        fault.address == call.peer and fault.at <= call.time <= fault.until + UNDER_WAY
        for fault in week.faults
    )


def sent_after_waking(week: Evidence, calls: Sequence[Call]) -> int:
    """Calls of a process that was stopped, in the seconds after it went on.

    It has lost its leases by then, but for what it was about to write to the socket.
    """
    return sum(
        fault.kind == "stop"
        and fault.address == call.peer
        and fault.until < call.time <= fault.until + UNDER_WAY
        for fault in week.faults
        for call in calls
    )


def takeovers(week: Evidence) -> dict[str, list[float]]:
    """By what was taken over from whom, the seconds until another process had it."""
    found: dict[str, list[float]] = defaultdict(list)
    for fault in week.faults:
        for name, epoch in fault.held.items():
            later = (s.at for s in week.watcher.leases.get(name, []) if s.epoch > epoch)
            if (at := next(later, None)) is not None:
                found[f"{name.partition(':')[0]}, {fault.kind}"].append(at - fault.at)
    return found
