"""Where everything stands, as values: the JSON of ``status`` is made of them as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from audience_sync.domain.audience import AudienceKey
from audience_sync.domain.quota import Lane


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldCapture:
    """``limit``: the reasons, each with the limit that was passed."""

    id: str
    entered: int
    exited: int
    limit: str
    captured_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldDelivery:
    id: str
    limit: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One audience at one destination.

    ``state``: ``new`` (never captured), ``waiting`` (the next run opens a span), ``resync`` (as
    soon as it was captured), ``open``, ``paused``, ``held``, ``ok``, or ``left`` (retired without
    a word). The counts are members of the span, or of the one to come; ``stand_rejected`` those
    of all spans who are still to be told, as ``rejections`` lists them.

    ``up_to_date_at``: when the destination was last known to have been told all that the source
    had said. While nothing waits every capture renews it; what waits, is held or fails does not.
    """

    name: str
    lane: Lane
    state: str
    told_seq: int | None
    to_seq: int
    total: int
    accepted: int
    rejected: int
    skipped: int
    remaining: int
    stand_rejected: int = 0
    eta: datetime | None = None
    held: HeldDelivery | None = None
    up_to_date_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """Why an audience is neither captured nor told, and the command or edit that ends it."""

    outcome: str
    why: str
    ends: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """One audience. ``state``: ``new``, ``active``, ``held``, ``paused`` or ``retired``."""

    key: AudienceKey
    name: str
    kind: str
    state: str
    members: int
    seq: int
    captured_at: datetime | None
    next_due: datetime | None
    error: str | None
    held: HeldCapture | None
    left_out: LeftOut | None
    destinations: tuple[Place, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PausedDestination:
    """``ordered``: by a person, so that it goes on only when somebody resumes it."""

    name: str
    reason: str
    since: datetime
    until: datetime | None
    ordered: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class QuotaToday:
    """Calls or requests (``unit``) of a destination within this day of UTC.

    ``used``: sent, or reserved by a run.
    """

    unit: str

    limit: int
    used: int
    by_lane: Mapping[Lane, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class DestinationStanding:
    """``quota`` ``None``: there is no limit a day."""

    name: str
    quota: QuotaToday | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """``gone``, ``gone_destinations``: in the store, but no longer in the configuration.

    An audience that is retired is not gone: nobody need do anything about it.
    """

    audiences: tuple[Standing, ...]
    destinations: tuple[DestinationStanding, ...]
    paused: tuple[PausedDestination, ...]
    gone: tuple[AudienceKey, ...]
    gone_destinations: tuple[str, ...]
