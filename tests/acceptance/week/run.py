"""One compressed week: starts everything, lets things go wrong, and gives back the evidence."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from sqlalchemy import text

from tests.acceptance.program import free_port, wait_until
from tests.acceptance.week.configuration import MAIN, SECOND, Size, Stretch, configuration
from tests.acceptance.week.daemons import Crew, Fault, Process, Watcher, drawn_times
from tests.acceptance.week.world import Planned, live, write_sources
from tests.fakes import tracking_api

AT_WORK = (f"deliver:{MAIN}:initial", "capture:", f"deliver:{MAIN}:incremental", "deliver:")
"""Leases whose holders are killed and stopped."""

AT_ONCE = 10.0
"""Seconds from a start to a kill."""

QUIET = 60.0
"""Seconds beyond the longest cadence within which all must be captured and told at the end."""

UNTOLD = """
SELECT count(*) FROM span WHERE state <> 'completed' UNION ALL
SELECT count(*) FROM (
    SELECT told.told_seq AS told_seq, max(snapshot.seq) AS newest
    FROM told JOIN snapshot ON snapshot.audience_id = told.audience_id
    WHERE snapshot.state = 'current' GROUP BY told.audience_id, told.destination_id, told.told_seq
) AS standing WHERE told_seq <> newest
"""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What there is to judge after the week."""

    folder: Path
    size: Size
    began: float
    changed_until: float
    """No membership changed after it."""
    all_told: bool
    """All was captured and told in the quiet time that followed."""
    ended: float
    exits: dict[str, tuple[int, float]]
    crew: Crew
    watcher: Watcher

    @property
    def audiences(self) -> dict[str, Planned]:
        return {planned.key: planned for planned in self.size.audiences}

    @property
    def faults(self) -> list[Fault]:
        return self.crew.faults

    @property
    def processes(self) -> list[Process]:
        return self.crew.processes

    @cached_property
    def working(self) -> list[tuple[float, float]]:
        """From when to when each process could work: started, not stopped, not yet killed.

        One that was killed at once has not got round to everybody who was overdue.
        """
        found = []
        for process in self.processes:
            at, ours = (
                process.started_at(),
                [f for f in self.faults if f.address == process.address],
            )
            for fault in ours if at is not None else ():
                found.append((at, fault.at))
                at = fault.until
            if at is not None and not any(fault.kind == "kill" for fault in ours):
                found.append((at, self.ended))
        return sorted((start, end) for start, end in found if end - start > AT_ONCE)

    def without_any(self, start: float, end: float) -> float:
        """Seconds between ``start`` and ``end`` in which no process could work."""
        seconds, at = 0.0, start
        for begin, over in self.working:
            seconds += max(0.0, min(begin, end) - at)
            at = min(max(at, over), end)
        return seconds + max(0.0, end - at)


class Api:
    """The fake Segment of one destination, which can go away and come back at its port."""

    def __init__(self, log: Path, latency: float) -> None:
        self.log = log
        self._latency = latency
        self._port = free_port()
        self.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, tracking_api.__file__, "--until-eof", "--log", str(self.log)),
                *("--latency", str(self._latency), "--port", str(self._port)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def run(
    size: Size, folder: Path, *, store: str, warehouse: str, daemons: str, seed: int
) -> Evidence:
    """Args:
    warehouse: URL of an empty PostgreSQL database.
    daemons: their names, a letter each.
    """
    (folder / "logs").mkdir()
    apis = {name: Api(folder / f"{name}.log", size.latency) for name in (MAIN, SECOND)}
    sources = Sources(
        size=size,
        folder=folder,
        conninfo=warehouse.replace("+psycopg", ""),
        endpoints={name: api.endpoint for name, api in apis.items()},
    )
    draw = random.Random(seed)
    sources.live(draw, time.time(), comes=0)
    sources.configure(0)
    watcher = Watcher(store)
    watcher.start()
    variables = {"STORE_URL": store, "WAREHOUSE_URL": warehouse, "WRITE_KEY": "test"}
    crew = Crew(daemons, folder, variables, watcher)
    week = _Week(size=size, crew=crew, apis=apis, sources=sources, draw=draw)
    try:
        began = week.begin()
        week.live_through(began)
        all_told = _is_told_in_time(watcher, size, began + size.seconds)
        exits, ended = crew.end(), time.time()
    finally:
        crew.kill_all()
        watcher.stop()
        for api in apis.values():
            api.end()
    told = [asdict(fault) for fault in crew.faults]
    (folder / "faults.json").write_text(json.dumps(told, indent=1))  # for a person who looks
    return Evidence(
        folder=folder,
        size=size,
        began=began,
        changed_until=began + size.seconds,
        all_told=all_told,
        ended=ended,
        exits=exits,
        crew=crew,
        watcher=watcher,
    )


def _is_told_in_time(watcher: Watcher, size: Size, changed_until: float) -> bool:
    """Wait until everybody was captured after the last change, and all was told."""
    last = datetime.fromtimestamp(changed_until, UTC)

    def done() -> bool:
        with watcher.engine.connect() as connection:
            untold = connection.execute(text(UNTOLD)).scalars().all()
        captured = {key for key, at in list(watcher.due) if at >= last}
        return not any(untold) and len(captured) == len(size.audiences)

    over = time.monotonic() + max(planned.longest for planned in size.audiences) + QUIET
    while not done():
        if time.monotonic() > over:
            return False
        time.sleep(0.1)
    return True


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What the daemons read: audiences in files and tables, and their configuration."""

    size: Size
    folder: Path
    conninfo: str
    endpoints: Mapping[str, str]

    def live(self, draw: random.Random, began: float, *, comes: int) -> None:
        """Draw and write the memberships of audiences that come in then or later."""
        chosen = [p for p in self.size.audiences if (p.comes == 0) == (comes == 0)]
        for planned in chosen:
            live(planned, draw, began, self.size.seconds)
        write_sources(chosen, self.folder / "exports", self.conninfo)

    def configure(self, comes: int) -> None:
        """The configuration with all who have come in by then."""
        audiences = [planned for planned in self.size.audiences if planned.comes <= comes]
        new = self.folder / "new.toml"
        new.write_text(configuration(audiences, self.size, self.endpoints))
        new.rename(self.folder / "config.toml")


@dataclass(kw_only=True)
class _Week:
    """What happens when. Each happening is due at seconds from the start."""

    size: Size
    crew: Crew
    apis: dict[str, Api]
    sources: Sources
    draw: random.Random

    def begin(self) -> float:
        """When all daemons work, and all memberships are written; the time of the beginning."""
        for process in self.crew.working.values():
            wait_until(process.started, 60.0)
        began = time.time() + self.size.writing
        self.sources.live(self.draw, began, comes=1)
        self._come_in(1)
        time.sleep(max(0.0, began - time.time()))
        return began

    def live_through(self, began: float) -> None:
        for at, act in sorted(self._happenings(), key=lambda pair: pair[0]):
            time.sleep(max(0.0, began + at - time.time()))
            act()
        time.sleep(max(0.0, began + self.size.seconds - time.time()))

    def _happenings(self) -> Iterator[tuple[float, Callable[[], None]]]:
        yield self.size.late, lambda: self._come_in(2)
        down: list[Fault] = []
        yield self.size.down.start, lambda: down.append(self._lose(SECOND))
        yield self.size.down.end, lambda: self._bring_back(SECOND, down[0])
        for stretch in self.size.kills:
            for at in drawn_times(self.draw, stretch.start, stretch.end, stretch.every):
                yield at, self._kill
        for number, stretch in enumerate(self.size.stops):
            yield from self._stopped(AT_WORK[number % len(AT_WORK)], stretch)

    def _stopped(self, on: str, stretch: Stretch) -> Iterator[tuple[float, Callable[[], None]]]:
        """Whoever is at work ``on`` something."""
        stopped: list[tuple[str, Fault]] = []

        def stop() -> None:
            name = self.crew.at_work(on, 10.0) or min(self.crew.working)
            stopped.append((name, self.crew.stop(name)))

        yield stretch.start, stop
        yield stretch.end, lambda: self.crew.go_on(*stopped[0])

    def _kill(self) -> None:
        """Somebody, mostly at work; sometimes all at once."""
        names = sorted(self.crew.working)
        name, on = self.draw.choice(names), self.draw.choice((*AT_WORK, ""))
        if on:
            name = self.crew.at_work(on, 2.0) or name
        self.crew.kill(*(names if self.draw.random() < 0.2 else [name]))

    def _come_in(self, comes: int) -> None:
        self.sources.configure(comes)
        for process in self.crew.working.values():
            wait_until(process.started, 60.0)
        self.crew.reload()

    def _lose(self, destination: str) -> Fault:
        self.apis[destination].end()
        now = time.time()
        self.crew.faults.append(Fault(kind="down", address=destination, at=now, until=now))
        return self.crew.faults[-1]

    def _bring_back(self, destination: str, fault: Fault) -> None:
        self.apis[destination].start()
        fault.until = time.time()
