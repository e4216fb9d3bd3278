"""Two captures by the program itself, and where their time goes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from audience_sync.app import App
from audience_sync.bootstrap import build
from audience_sync.config.load import load
from audience_sync.pipeline.captures import Configured
from audience_sync.pipeline.ports.reading import Comparison, Engine, Membership, Source
from bench.measured import Stopwatch, report
from bench.workload import ENVIRONMENT, today

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TimedSource:
    """``load`` ends when the engine has taken the last row."""

    source: Source
    watch: Stopwatch

    @contextmanager
    def read(self, query: str, cycle_time: datetime) -> Iterator[pa.RecordBatchReader]:
        with self.source.read(query, cycle_time) as reader:

            def batches() -> Iterator[pa.RecordBatch]:
                yield from reader
                self.watch.lap("load")

            yield pa.RecordBatchReader.from_batches(reader.schema, batches())


@dataclass(frozen=True, slots=True)
class TimedEngine:
    engine: Engine
    watch: Stopwatch

    @contextmanager
    def compare(
        self, previous: Membership | None, rows: pa.RecordBatchReader, **how: Any
    ) -> Iterator[Comparison]:
        with self.engine.compare(previous, rows, **how) as comparison:
            self.watch.lap("compare")
            yield comparison


def capture(app: App, configured: Configured, cycle_time: datetime) -> dict[str, float]:
    """Seconds of each part. ``store`` includes sorting what is stored."""
    watch = Stopwatch()
    captures = replace(app.captures(), engine=TimedEngine(app.engine, watch))
    source = TimedSource(configured.source, watch)
    outcome = captures.capture(replace(configured, source=source), cycle_time)
    watch.lap("store")
    if outcome.outcome != "committed":
        raise SystemExit(f"the capture was not committed: {outcome.outcome} {outcome.error}")
    return watch.laps


def main(folder: Path) -> None:
    app = build(load([folder / "config.toml"], ENVIRONMENT), writes=True)
    (configured,) = app.audiences.values()
    laps = []
    for day in range(2):
        today(folder, day)
        laps.append(capture(app, configured, START + timedelta(days=day)))
    app.close()
    size = (folder / "state.db").stat().st_size
    report({"first": laps[0], "cycle": laps[1], "stored": size})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
