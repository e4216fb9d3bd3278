"""What one lane may still use of a destination's daily quota, reserved before it is sent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

import structlog

from audience_sync.domain.quota import Lane, block_of, next_day, quota_left
from audience_sync.errors import LeaseLost, QuotaUsed, StoreFailed
from audience_sync.pipeline.line import Line
from audience_sync.pipeline.ports.delivering import Quotas
from audience_sync.pipeline.ports.destination import Destination
from audience_sync.pipeline.ports.leases import Lease

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Taken:
    """What one batch may still use, and of which day."""

    day: date
    amount: int
    has_begun: bool = False
    """Whether a request of the batch may have left us."""
    line: Line = field(default_factory=Line)


class Allowance:
    """A lane's part of the quota; shared by its workers. The day is that of ``clock`` in UTC.

    A batch takes what it needs before it is started, in the order of the batches, so that none
    is sent beyond one that must wait for tomorrow. Each request then uses some of that, and a
    repeated one takes more.
    """

    def __init__(
        self,
        *,
        destination: Destination,
        lane: Lane,
        quotas: Quotas,
        lease: Lease,
        clock: Callable[[], datetime],
    ) -> None:
        self._destination = destination
        self._lane = lane
        self._quotas = quotas
        self._lease = lease
        self._clock = clock
        self._lock = threading.Lock()
        self._day = date.min
        self._rest = 0

    def left(self) -> int | None:
        """Of today, by what the store knows; ``None``: there is no quota."""
        to = self._destination
        if to.quota is None:
            return None
        used = self._quotas.used(to.name, self._today())
        return self._rest + quota_left(self._lane, quota=to.quota, reserve=to.reserve, used=used)

    def take(self, amount: int) -> Taken:
        """As much as there is, up to ``amount``.

        Raises:
            LeaseLost, StoreFailed: nothing can be reserved.
        """
        today = self._today()
        if self._destination.quota is None:
            return Taken(today, amount)
        with self._lock:
            self._begin(today)
            if self._rest < amount:
                self._rest += self._reserved(amount - self._rest, self._destination.quota)
            taken = Taken(today, min(amount, self._rest))
            self._rest -= taken.amount
            return taken

    def use(self, taken: Taken, amount: int) -> None:
        """Just before a request of ``amount``: of what was taken, or more.

        What was taken of a day that is over is of no use: the destination counts by its clock.

        Raises:
            QuotaUsed: nothing may be sent.
            LeaseLost, StoreFailed: nothing can be reserved.
        """
        if taken.day != self._today():
            self.put_back(taken)
            taken.day = self._today()
        if taken.amount < amount:
            more = self.take(amount - taken.amount)
            if more.day != taken.day:  # midnight, within this very moment
                taken.day, taken.amount = more.day, 0
            taken.amount += more.amount
        if taken.amount < amount:
            raise self.used_up()
        taken.amount -= amount

    def put_back(self, taken: Taken) -> None:
        """What a batch did not use, for the next one."""
        with self._lock:
            if taken.day == self._day:
                self._rest += taken.amount
        taken.amount = 0

    def used_up(self) -> QuotaUsed:
        return QuotaUsed(
            f"the daily quota of {self._destination.name} is used", until=next_day(self._clock())
        )

    def close(self) -> None:
        """What was reserved and not used is given back; were it not, it would count as used."""
        with self._lock:
            rest, self._rest = self._rest, 0
            if not rest:
                return
            try:
                self._quotas.give_back(
                    self._destination.name, self._lane, self._day, rest, self._lease
                )
            except (LeaseLost, StoreFailed) as error:
                log.warning("quota not given back", unused=rest, error=str(error))

    def _begin(self, today: date) -> None:
        """What is left of yesterday was not used; nobody needs to know."""
        if today != self._day:
            self._day, self._rest = today, 0

    def _reserved(self, wanted: int, quota: int) -> int:
        to = self._destination
        return self._quotas.reserve(
            to.name,
            self._lane,
            self._day,
            block_of(wanted, quota=quota, rate=to.rate),
            quota=quota,
            reserve=to.reserve,
            lease=self._lease,
        )

    def _today(self) -> date:
        return self._clock().astimezone(UTC).date()
