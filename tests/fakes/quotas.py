"""Daily quotas in memory, by the same rule; and the allowance of a lane that has none."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from audience_sync.domain.quota import Lane, quota_left
from audience_sync.pipeline.allowance import Allowance
from audience_sync.pipeline.ports.delivering import Quotas
from audience_sync.pipeline.ports.destination import Destination
from audience_sync.pipeline.ports.leases import Lease


@dataclass
class FakeQuotas:
    """A ``Quotas`` of one destination."""

    days: dict[date, dict[Lane, int]] = field(default_factory=dict)
    writes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def used(self, destination: str, day: date) -> Mapping[Lane, int]:
        return dict(self.days.get(day, {}))

    def reserve(
        self,
        destination: str,
        lane: Lane,
        day: date,
        amount: int,
        *,
        quota: int,
        reserve: float,
        lease: Lease,
    ) -> int:
        with self.lock:
            self.writes += 1
            used = self.days.setdefault(day, {})
            granted = min(amount, quota_left(lane, quota=quota, reserve=reserve, used=used))
            used[lane] = used.get(lane, 0) + granted
            return granted

    def give_back(self, destination: str, lane: Lane, day: date, amount: int, lease: Lease) -> None:
        with self.lock:
            self.writes += 1
            self.days[day][lane] -= amount


def allowance(
    to: Destination,
    lease: Lease,
    lane: Lane = Lane.INITIAL,
    quotas: Quotas | None = None,
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC),
) -> Allowance:
    return Allowance(
        destination=to,
        lane=lane,
        quotas=quotas or FakeQuotas(),
        lease=lease,
        clock=lambda: now,
    )
