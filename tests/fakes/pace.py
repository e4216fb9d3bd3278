"""A rate without anybody who sleeps."""

from __future__ import annotations

from audience_sync.domain.quota import Pace


def left(pace: Pace, amount: int, now: float) -> float:
    """Take ``amount`` pieces; seconds until they may go, unless the rate falls."""
    return max(0.0, pace.turn(amount, now).at - now)
