"""How long a destination takes from now on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from audience_sync.cli.opened import present
from audience_sync.domain.quota import DAY, Lane
from audience_sync.pipeline.lane_time import lane_time
from audience_sync.pipeline.turns import turns_of

if TYPE_CHECKING:
    from audience_sync.app import App


class Takes:
    """How long one lane of a destination takes from now on."""

    def __init__(self, app: App, name: str, lane: Lane) -> None:
        self._to = app.destinations[name]
        self._lane = lane
        self._now = present()
        stored = app.books.stored_as(name, app.places[name])
        self._used = app.quotas.used(stored, self._now.date())

    def seconds(self, amount: int) -> float:
        """``amount``: of what rate and quota count."""
        took = lane_time(self._to, self._lane, amount, now=self._now, used=self._used)
        return took.total_seconds()

    def turns(self, left: Sequence[int]) -> list[list[int]]:
        """Which of several spans are walked together; see ``pipeline.turns``."""
        return turns_of(self._to, self._lane, left, now=self._now, used=self._used)

    def days(self, amount: int) -> int:
        return math.ceil(self.seconds(amount) / DAY) if amount else 0
