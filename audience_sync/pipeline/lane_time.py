"""How long a lane takes under the rate and the quota of its destination."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from audience_sync.domain.quota import Lane, done_in, quota_left, quota_of, share

if TYPE_CHECKING:  # it needs pyarrow, which a command line starts without
    from audience_sync.pipeline.ports.destination import Destination


def lane_time(
    to: Destination, lane: Lane, calls: int, *, now: datetime, used: Mapping[Lane, int]
) -> timedelta:
    """Were they sent without a break from ``now`` on, and the other lane sent nothing more.

    Args:
        used: of today's quota.
    """
    rate = to.rate * share(lane, reserve=to.reserve, initial_open=lane is Lane.INITIAL)
    if to.quota is None:
        return done_in(calls, now, rate=rate)
    per_day = quota_of(lane, quota=to.quota, reserve=to.reserve)
    left = quota_left(lane, quota=to.quota, reserve=to.reserve, used=used)
    return done_in(calls, now, rate=rate, per_day=per_day, left=left)
