"""What there is to measure, read from the store at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from audience_sync.standing.overview import overview
from audience_sync.standing.values import Overview

if TYPE_CHECKING:
    from audience_sync.app import App


@dataclass(frozen=True, kw_only=True, slots=True)
class Measures:
    """``rates``: calls per second that each destination may be sent, by configuration."""

    read_at: datetime
    overview: Overview
    rates: Mapping[str, float]


def measure(app: App, now: datetime) -> Measures:
    """Read the store: a few queries, and two for each audience and destination that is behind.

    Raises:
        StoreFailed: it cannot be read.
    """
    return Measures(
        read_at=now,
        overview=overview(app, now),
        rates={name: destination.rate for name, destination in app.destinations.items()},
    )
