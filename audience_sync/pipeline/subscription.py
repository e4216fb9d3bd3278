"""How one audience is told."""

from __future__ import annotations

from dataclasses import dataclass

from audience_sync.domain.audience import Tell
from audience_sync.domain.guard import Limits


@dataclass(frozen=True, kw_only=True, slots=True)
class Subscription:
    """Of one audience at one destination."""

    tell: frozenset[Tell]
    limits: Limits
