"""The store and the servers' logs as they stand after the week, read without the program."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import Engine, select

from audience_sync.store import schema
from tests.acceptance.week.configuration import LINES, MAIN, SECOND
from tests.acceptance.week.world import Members

CHECKSUM = 4
"""Bytes after the Arrow stream of a chunk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One accepted call. ``time`` and ``peer`` are unknown of a file's lines."""

    destination: str
    id: str
    type: str
    user_id: str
    key: str
    timestamp: str
    traits: dict[str, Any]
    body: str
    time: float = 0.0
    peer: str = ""
    connection: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Capture:
    """A recorded capture run."""

    key: str
    cycle_time: datetime
    started: float
    ended: float
    outcome: str
    snapshot: Any
    """The row, where one was made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneRun:
    id: int
    destination: str
    lane: str
    started: float
    ended: float | None
    outcome: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    key: str
    destination: str
    lane: str
    state: str
    from_time: datetime | None
    """Cycle time of the snapshot it starts from; ``None``: nobody was a member."""
    to_time: datetime
    from_seq: int
    to_seq: int
    books: dict[str, int]
    opened: float
    ended: float | None

    @property
    def timestamp(self) -> str:
        """Of its calls."""
        return iso(self.to_time)


@dataclass(kw_only=True)
class Stored:
    captures: list[Capture] = field(default_factory=list)
    """In the order in which they were recorded."""
    runs: list[LaneRun] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    staged: int = 0
    paused: list[str] = field(default_factory=list)
    rejections: int = 0
    unended: int = 0
    told: dict[tuple[str, str], int] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)


def iso(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def read_store(engine: Engine) -> Stored:
    with engine.connect() as connection:

        def rows(table: Any) -> list[Any]:
            return list(connection.execute(select(table).order_by(table.c.id)))

        keys = {row.id: row.key for row in rows(schema.audience)}
        destinations = rows(schema.destination)
        names = {row.id: row.name for row in destinations}
        snapshots = {row.id: row for row in rows(schema.snapshot)}
        times = {(s.audience_id, s.seq): s for s in snapshots.values() if s.state == "current"}
        stored = Stored(
            staged=sum(row.state == "staged" for row in snapshots.values()),
            paused=[row.name for row in destinations if row.paused_reason or row.stopped_at],
            rejections=len(rows(schema.rejection)),
        )
        for run in rows(schema.run):
            stored.unended += run.ended_at is None
            _keep_run(stored, run, keys, names, snapshots)
        for span in rows(schema.span):
            before = times.get((span.audience_id, span.from_seq))
            stored.spans.append(
                Span(
                    key=keys[span.audience_id],
                    destination=names[span.destination_id],
                    lane=span.lane,
                    state=span.state,
                    from_time=before.captured_at if before else None,
                    to_time=times[span.audience_id, span.to_seq].captured_at,
                    from_seq=span.from_seq,
                    to_seq=span.to_seq,
                    books={
                        n: getattr(span, n) for n in ("total", "accepted", "rejected", "skipped")
                    },
                    opened=span.opened_at.timestamp(),
                    ended=span.ended_at.timestamp() if span.ended_at else None,
                )
            )
        for told in connection.execute(select(schema.told)):
            stored.told[keys[told.audience_id], names[told.destination_id]] = told.told_seq
        for audience, seq in sorted(times):
            stored.newest[keys[audience]] = seq
    return stored


def _keep_run(stored: Stored, run: Any, keys: Any, names: Any, snapshots: Any) -> None:
    started = run.started_at.timestamp()
    ended = run.ended_at.timestamp() if run.ended_at else None
    if run.kind == "capture":
        capture = Capture(
            key=keys[run.audience_id],
            cycle_time=run.cycle_time,
            started=started,
            ended=ended or started,
            outcome=run.outcome,
            snapshot=snapshots.get(run.snapshot_id),
        )
        stored.captures.append(capture)
    else:
        name, lane = names[run.destination_id], run.lane
        stored.runs.append(
            LaneRun(
                id=run.id,
                destination=name,
                lane=lane,
                started=started,
                ended=ended,
                outcome=run.outcome,
            )
        )


class Chunks:
    """Members of snapshots, put together from the rows of the table ``chunk``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def base(self, snapshot: Any) -> Members:
        return {row.pop("user_id"): row for row in self._rows(snapshot, "base")}

    def first(self, snapshots: Sequence[Any]) -> Members:
        """The members at the first of these snapshots, from the oldest base that is kept."""
        base = next(i for i, snapshot in enumerate(snapshots) if snapshot.has_base)
        members = self.base(snapshots[base])
        for snapshot in reversed(snapshots[1 : base + 1]):
            for row in self._rows(snapshot, "changes"):
                members.pop(row["user_id"], None)
                if (was := _side(row, "before")) is not None:
                    members[row["user_id"]] = was
        return members

    def apply(self, snapshot: Any, members: Members) -> list[str]:
        """Lay the changes of ``snapshot`` over ``members``; what does not fit."""
        faults = []
        for row in self._rows(snapshot, "changes"):
            user_id, was, now = row["user_id"], _side(row, "before"), _side(row, "after")
            if members.pop(user_id, None) != was:
                faults.append(f"{user_id} was not {was} before")
            if now is not None:
                members[user_id] = now
        return faults

    def _rows(self, snapshot: Any, part: str) -> Iterator[dict[str, Any]]:
        chunk = schema.chunk
        where = (chunk.c.snapshot_id == snapshot.id) & (chunk.c.part == part)
        with self._engine.connect() as connection:
            for row in connection.execute(select(chunk).where(where).order_by(chunk.c.ordinal)):
                for batch in pa.ipc.open_stream(bytes(row.payload)[:-CHECKSUM]):
                    yield from batch.to_pylist()


def _side(row: dict[str, Any], side: str) -> dict[str, Any] | None:
    if not row[side]:
        return None
    return {n.removeprefix(f"{side}."): v for n, v in row.items() if n.startswith(f"{side}.")}


def read_calls(folder: Path) -> list[Call]:
    """Of all destinations, each in the order of arrival."""
    calls = []
    for name in (MAIN, SECOND):
        for line in (folder / f"{name}.log").read_text().splitlines():
            entry = json.loads(line)
            marks = {n: entry[n] for n in ("time", "peer", "connection")}
            calls.append(_call(name, entry["messageId"], entry["body"], entry["hash"], **marks))
    lines = folder / "calls.ndjson"
    for line in lines.read_text().splitlines() if lines.exists() else ():
        body = json.loads(line)
        message_id = body.pop("messageId")
        calls.append(_call(LINES, message_id, body, json.dumps(body, sort_keys=True)))
    return calls


def _call(name: str, message_id: str, body: dict[str, Any], text: str, **marks: Any) -> Call:
    return Call(
        destination=name,
        id=message_id,
        type=body["type"],
        user_id=body["userId"],
        key=body["context"]["personas"]["computation_key"],
        timestamp=body["timestamp"],
        traits=body["traits"] if body["type"] == "identify" else body["properties"],
        body=text,
        **marks,
    )
