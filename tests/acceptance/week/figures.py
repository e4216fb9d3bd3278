"""The week in figures, and what the processes themselves said of it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.acceptance.week.daemons import Fault
from tests.acceptance.week.evidence import Call, Stored
from tests.acceptance.week.order import Repeat, after_each, sent_after_waking, takeovers
from tests.acceptance.week.punctuality import Delivery, initial_sync, lateness
from tests.acceptance.week.run import Evidence
from tests.acceptance.week.world import PRIVATE

KILLED = -9
DRAINED_WITHIN = 25.0


def processes_ended_well(week: Evidence) -> Iterator[str]:
    for name, (code, seconds) in week.exits.items():
        if code != 0 or seconds > DRAINED_WITHIN:
            yield f"daemon {name} ended with {code} after {seconds:.1f} s"
    last = {process.address for process in week.crew.working.values()}
    for process in week.processes:
        if process.address not in last and process.popen.returncode != KILLED:
            yield f"{process.log.name} had ended by itself with {process.popen.returncode}"
    for pid in left_behind(week.folder):
        yield f"process {pid} is left behind"


def left_behind(folder: Path) -> list[int]:
    """Processes at work in ``folder``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        try:
            at = os.readlink(entry)
        except OSError:
            continue
        if Path(at) == folder and int(entry.parent.name) != os.getpid():
            found.append(int(entry.parent.name))
    return found


def logs_are_clean(week: Evidence) -> Iterator[str]:
    for process in week.processes:
        for line in process.log.read_text().splitlines():
            name = process.log.name
            said = _said(line)
            if said is None:
                yield f"{name}: not a line of the log: {line[:300]}"
            elif "exception" in said or said["level"] == "critical":
                yield f"{name}: {line[:300]}"
            if PRIVATE in line or "person-" in line:
                yield f"{name}: names a person: {line[:300]}"


def _said(line: str) -> dict[str, Any] | None:
    try:
        return dict(json.loads(line))
    except ValueError:
        return None


def events(week: Evidence) -> Counter[str]:
    """Lines of the logs by level and event."""
    found: Counter[str] = Counter()
    for process in week.processes:
        for line in process.log.read_text().splitlines():
            said = _said(line) or {}
            what = str(said.get("error", ""))[:90]
            if said.get("level") != "info":
                found[f"{said.get('level')}: {said.get('event')}: {what}"] += 1
    return found


def spread(values: Sequence[float]) -> str:
    if not values:
        return "none"
    ordered = sorted(values)
    high = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return f"{len(ordered)}: median {median(ordered):.2f}, 95 % {high:.2f}, max {ordered[-1]:.2f} s"


def figures(
    week: Evidence,
    stored: Stored,
    calls: Sequence[Call],
    found: Sequence[Repeat],
    delivered: Sequence[Delivery],
) -> Iterator[str]:
    late = lateness(week, stored)
    kinds = Counter(fault.kind for fault in week.faults)
    yield f"seconds            {week.ended - week.began:.0f}, {len(week.processes)} processes"
    yield f"captures           {dict(Counter(c.outcome for c in stored.captures))}"
    yield f"calls              {dict(Counter(c.destination for c in calls))}"
    yield f"spans, runs        {len(stored.spans)}, {dict(Counter(r.outcome for r in stored.runs))}"
    yield f"faults             {dict(kinds)}"
    yield f"nobody at work     {week.without_any(week.began, week.ended):.0f} s"
    yield f"at kills were held {dict(Counter(_held(f) for f in week.faults if f.kind == 'kill'))}"
    yield f"repeats            {len(found)}, by fault {_by_fault(found)}"
    yield f"  in one lane      {max(after_each(found).values(), default=0)} after one fault"
    yield f"  accepted before  {spread([r.age for r in found if r.call.peer])}"
    yield f"sent after waking  {sent_after_waking(week, calls)}"
    yield f"due → begun        {spread(late.begun)}"
    yield f"due → captured     {spread(late.captured)}"
    yield f"  without faults   {spread(late.calm)}"
    yield f"  while one sleeps {spread(late.beside_stop)}"
    long = initial_sync(week, stored)
    taken = (long.ended or week.ended) - long.opened
    yield f"initial sync       {long.books['total']} members in {taken:.0f} s"
    for name, of in _groups(delivered):
        yield f"{name:18} first {spread([d.first for d in of])}"
        yield f"{'':18} last  {spread([d.last for d in of])}"
    for name, seconds in sorted(takeovers(week).items()):
        yield f"taken over {name:12} {spread(seconds)}"
    yield f"ended              {week.exits}"
    for line, count in events(week).most_common(20):
        yield f"log                {count} × {line}"


def _groups(delivered: Sequence[Delivery]) -> Iterator[tuple[str, list[Delivery]]]:
    """Deliveries beside the initial sync, while one daemon sleeps, after a destination was down,
    and all others."""
    yield "told beside it", [d for d in delivered if d.beside_initial and not d.beside_stop]
    yield "told, one asleep", [d for d in delivered if d.beside_stop]
    yield "told after down", [d for d in delivered if d.after_down]
    others = (d for d in delivered if not (d.beside_initial or d.beside_stop or d.after_down))
    yield "told otherwise", list(others)


def _held(fault: Fault) -> str:
    return "+".join(sorted({name.partition(":")[0] for name in fault.held})) or "nothing"


def _by_fault(found: Sequence[Repeat]) -> dict[str, int]:
    return dict(Counter(repeat.fault.kind if repeat.fault else "none" for repeat in found))
