"""When which audiences are captured: decided from what the store knows, anew at each look."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from audience_sync.domain.schedule import Cadence
from audience_sync.pipeline.captures import Configured

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
"""When one that is overdue by no known time was due."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Audiences of one source and one cadence: captured in one cycle, so that a warehouse wakes up
    once."""

    name: str
    source: str
    audiences: tuple[Configured, ...]

    @property
    def loop(self) -> str:
        """The loop that captures it: cycles of one source come one after another."""
        return f"captures:{self.source}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Capturing:
    """What the store knows of the captures of one audience; ``None``: nothing."""

    last: datetime | None = None
    due: datetime | None = None


def groups(audiences: Iterable[Configured]) -> list[Group]:
    found: dict[tuple[str, Cadence], list[Configured]] = {}
    for configured in audiences:
        key = configured.audience.source, configured.cadence
        found.setdefault(key, []).append(configured)
    return [
        Group(name=f"cycle {number} of {source}", source=source, audiences=tuple(members))
        for number, ((source, _), members) in enumerate(found.items(), start=1)
    ]


def due_at(capturing: Capturing, clock: datetime) -> datetime:
    """When an audience is captured next, to the second; in the past when it is overdue.

    The same at each look until it was captured or the clock was set back.
    """
    last, due = capturing.last, capturing.due
    if last is None or due is None or last > clock:  # see domain.schedule.is_due
        return LONG_AGO
    return due.replace(microsecond=0)


def next_cycle(capturings: Sequence[Capturing], clock: datetime) -> datetime | None:
    """When the next cycle of a group is; ``None``: nobody in it is to be captured."""
    return min((due_at(capturing, clock) for capturing in capturings), default=None)
