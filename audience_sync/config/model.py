"""What a configuration says: the tables a person writes, and the ``Config`` they become."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import tzinfo
from typing import Annotated, Any, Literal

from pydantic import Field

from audience_sync.config.amounts import DEFAULT_RESERVE
from audience_sync.config.crisp import CrispDestination
from audience_sync.config.status import StatusTable
from audience_sync.config.table import Table, default
from audience_sync.config.values import (
    Calls,
    Deadline,
    Endpoint,
    Every,
    FilePath,
    Growth,
    Integration,
    Keep,
    Label,
    MaxAge,
    Name,
    Plain,
    Quota,
    Rate,
    Reserve,
    Secret,
    Share,
    Size,
    SourceUrl,
    StoreUrl,
    Timeout,
    Timezone,
)
from audience_sync.domain.audience import AudienceKey, Kind, OnRetire, State, Tell
from audience_sync.domain.guard import Limits
from audience_sync.domain.schedule import Cadence

DEFAULT_STORE = "sqlite:///audience_sync.db"


def _cores() -> int:
    """The cores this process may use, which in a container are fewer than the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _spill() -> Any:
    try:
        folder = tempfile.gettempdir()
    except OSError:  # there is none that can be written to, which is told when it is needed
        folder = "/tmp"  # noqa: S108
    return os.path.join(folder, f"audience-sync-spill-{os.geteuid()}")


class Store(Table):
    url: StoreUrl = Field(
        default=DEFAULT_STORE, description="Where snapshots and positions are kept.", repr=False
    )
    keep: Keep = default("30d", "How long history stays readable.")


class ScheduleTable(Table):
    every: Every = default("2h..3h", "How often each audience is captured.")
    timezone: Timezone = default("UTC", "Whose wall clock cron lines mean.")


class GuardTable(Table):
    """Beyond these limits a capture is held until it is approved."""

    max_exits: Share = default("20%", "Of the members, in one capture.")
    max_exits_24h: Growth = default("40%", "Of the members, within 24 hours.")
    max_entries: Growth = default("200%", "Of the members, and more than 10 × floor.")
    floor: int = Field(default=100, ge=0, le=1_000_000, description="So many exits never hold.")
    max_initial: int = Field(
        default=100_000, ge=0, le=10**12, description="A first delivery to more members asks first."
    )
    max_refused_rows: Share = default("1%", "Of the rows read.")


class Engine(Table):
    memory_limit: Size = default("768MB", "Memory of one comparison.")
    threads: int = Field(default_factory=_cores, ge=1, le=1024)
    spill: FilePath = Field(
        default_factory=_spill, description="Folder for what does not fit into memory_limit."
    )


class FileFreshness(Table):
    """Data older than this fails the capture; without a query it is the age of the files."""

    max_age: MaxAge
    query: str | None = Field(default=None, description="Gives one time.")


class SqlFreshness(Table):
    """Data older than this fails the capture."""

    max_age: MaxAge
    query: str = Field(description="Gives one time.")


class FilesSource(Table):
    type: Literal["files"]
    root: FilePath = Field(description="File names in queries are relative to it.")
    freshness: FileFreshness | None = None


class SqlSource(Table):
    type: Literal["sql"]
    url: SourceUrl = Field(repr=False)
    connect_args: dict[str, Plain] = Field(
        default={}, repr=False, description="Passed to the driver."
    )
    timeout: Timeout = default("15m", "Of one read, from connecting to the last row.")
    freshness: SqlFreshness | None = None


class SegmentDestination(Table):
    type: Literal["segment"]
    write_key: Secret = Field(repr=False)
    endpoint: Endpoint = Field(
        default="https://api.segment.io/v1", description="EU: https://events.eu1.segmentapis.com/v1"
    )
    calls: Calls = Field(default=["identify"], description="Made of every change.")
    integrations: dict[str, Integration] = Field(
        default={}, description="Which destinations get a call."
    )
    rate: Rate = default("1000/s", "Calls, which Segment counts as events.")
    quota: Quota | None = Field(default=None, description="Calls a day (UTC); none without it.")
    reserve: Reserve = default(DEFAULT_RESERVE, "Of rate and quota, kept for incremental runs.")
    concurrency: int = Field(default=8, ge=1, le=64, description="Requests in flight.")
    batch: int = Field(default=500, ge=1, le=2500, description="Calls in one request.")
    deadline: Deadline = default("30s", "Of one request, all in all.")


class NdjsonDestination(Table):
    type: Literal["ndjson"]
    path: FilePath = Field(description="Every call is appended to it as one line of JSON.")
    calls: Calls = Field(default=["identify"], description="Made of every change.")
    rate: Rate = default("1000000/s", "Calls.")
    quota: Quota | None = Field(default=None, description="Calls a day (UTC); none without it.")
    reserve: Reserve = default(DEFAULT_RESERVE, "Of rate and quota, kept for incremental runs.")


Source = FilesSource | SqlSource
Destination = SegmentDestination | CrispDestination | NdjsonDestination
TellWord = Literal["entered", "exited", "updated"]
StateWord = Literal["active", "paused", "retired"]
OnRetireWord = Literal["tell_false", "leave"]


class ComputedTraitTable(Table):
    """What an audience has too; but the query gives ``value``, and every change is told."""

    name: Label = Field(description="What people call it; also gives the trait key.")
    key: str | None = Field(default=None, description="The trait key, when chosen.")
    source: str
    query: str | None = Field(default=None, description="Gives user_id and traits.")
    query_file: FilePath | None = Field(default=None, description="Instead of query.")
    destinations: list[str] = Field(min_length=1)
    every: Every | None = Field(default=None, description="Instead of schedule.every.")
    guard: GuardTable = Field(default_factory=GuardTable, description="Overrides of [guard].")
    state: StateWord = Field(default="active", description="What is wanted of it.")
    on_retire: OnRetireWord = Field(
        default="tell_false", description="What its members are told when it is retired."
    )
    owner: str | None = None
    description: str | None = None
    tags: list[str] = []


class AudienceTable(ComputedTraitTable):
    """A named set of members."""

    tell: list[TellWord] = Field(default=["entered", "exited"], min_length=1)


class Written(Table):
    """Everything that may stand in a configuration, as a person writes it."""

    include: list[str] = Field(
        default=[], description="More files; patterns relative to this file."
    )
    store: Store = Field(default_factory=Store)
    schedule: ScheduleTable = Field(default_factory=ScheduleTable)
    guard: GuardTable = Field(default_factory=GuardTable)
    engine: Engine = Field(default_factory=Engine)
    status: StatusTable | None = None
    sources: dict[Name, Annotated[Source, Field(discriminator="type")]] = {}
    destinations: dict[Name, Annotated[Destination, Field(discriminator="type")]] = {}
    audiences: list[AudienceTable] = []
    computed_traits: list[ComputedTraitTable] = []


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    every: Cadence
    timezone: tzinfo


@dataclass(frozen=True, kw_only=True, slots=True)
class AudienceConfig:
    """One audience or computed trait; cadence and limits are its own or the defaults."""

    key: AudienceKey
    explicit_key: bool
    """``key`` is written, not made of the name."""
    name: str
    kind: Kind
    state: State
    on_retire: OnRetire
    source: str
    query: str
    destinations: tuple[str, ...]
    cadence: Cadence
    limits: Limits
    tell: frozenset[Tell]
    owner: str | None
    description: str | None
    tags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """The whole configuration in plain values: paths absolute, ``${…}`` filled in."""

    store: Store
    schedule: Schedule
    guard: Limits
    engine: Engine
    status: StatusTable | None
    sources: Mapping[str, Source]
    destinations: Mapping[str, Destination]
    audiences: tuple[AudienceConfig, ...]
