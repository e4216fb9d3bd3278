"""What an audience is, and the values that travel with its members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType

AudienceKey = NewType("AudienceKey", str)
Seq = NewType("Seq", int)
"""Number of a snapshot within its audience, from 1; 0 is the empty membership before the first."""

Value = str | bool | int | float | None
Row = Mapping[str, Value]
"""The carried columns of one member (without ``user_id``)."""


class ColumnType(StrEnum):
    """The four types a carried column can have, whatever the source calls them."""

    STRING = "string"
    BOOL = "bool"
    INT64 = "int64"
    FLOAT64 = "float64"


Columns = Mapping[str, ColumnType]


class Kind(StrEnum):
    AUDIENCE = "audience"
    COMPUTED_TRAIT = "trait"


VALUE = "value"
"""The column that carries the value of a computed trait."""


class State(StrEnum):
    """What the configuration wants of an audience."""

    ACTIVE = "active"
    PAUSED = "paused"
    """Neither captured nor told, until it is active again."""
    RETIRED = "retired"
    """Closed for good; its key is never used again."""


class OnRetire(StrEnum):
    """What becomes of those who were told that they are members, when their audience retires."""

    TELL_FALSE = "tell_false"
    LEAVE = "leave"


class Tell(StrEnum):
    """Which changes of a membership a destination is told."""

    ENTERED = "entered"
    EXITED = "exited"
    UPDATED = "updated"


LEAVING = frozenset({Tell.EXITED})
"""What is told of an audience that is retired."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Audience:
    """One audience as configured, in plain values."""

    key: AudienceKey
    name: str
    source: str
    query: str
    destinations: tuple[str, ...]
    kind: Kind = Kind.AUDIENCE
    tell: frozenset[Tell] = frozenset({Tell.ENTERED, Tell.EXITED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """An audience that the store knows, whatever the configuration says now."""

    key: AudienceKey
    name: str
    kind: Kind
    seq: Seq
    """0: never captured."""
    members: int
    paused_at: datetime | None = None
    retired_at: datetime | None = None
    told_to: frozenset[str] = frozenset()
    """Destinations of which anything was told, or tried to be."""
