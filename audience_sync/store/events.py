"""What can have happened to an audience, as ``history`` and ``explain`` show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from audience_sync.domain.audience import Seq


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderGiven:
    """``actor``: ``user@host``, ``None`` in a store of an older version."""

    at: datetime
    kind: str
    outcome: str
    actor: str | None
    reason: str | None
    destinations: tuple[str, ...]
    plan: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotMade:
    """``definition``: hash of the query; ``definition_before``: the last one, where it differs."""

    seq: Seq
    captured_at: datetime
    members: int
    entered: int
    exited: int
    updated: int
    rows_read: int
    refused: Mapping[str, int]
    duplicates: int
    plan: str
    definition: str
    definition_before: str | None
    kept: bool
    approval: OrderGiven | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunInTrouble:
    """A capture of the audience, or a delivery to one of its destinations."""

    kind: str
    destination: str | None
    cycle_time: datetime | None
    started_at: datetime
    ended_at: datetime | None
    outcome: str
    error: str | None
    plan: str | None
    held_for: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    seq: Seq
    captured_at: datetime
    members: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A snapshot as the date of something; ``definition``: hash of the query."""

    seq: Seq
    captured_at: datetime
    definition: str
