"""Send one batch until it is accepted, refused member by member, or the destination pauses."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from audience_sync.domain.quota import Pace
from audience_sync.domain.retry import backoff
from audience_sync.domain.span import Refusal, Tally
from audience_sync.errors import (
    AudienceSyncError,
    BadCalls,
    DestinationPaused,
    LeaseLost,
    RetryLater,
)
from audience_sync.pipeline.allowance import Allowance, Taken
from audience_sync.pipeline.batches import Batch
from audience_sync.pipeline.ports.destination import Destination
from audience_sync.pipeline.ports.leases import Lease
from audience_sync.pipeline.ports.sending import MemberCalls, Sender, Sent

MAX_ATTEMPTS = 10
"""Tries of one request that nobody answered properly; about two minutes with the back-off."""

LONGEST_WAIT = 120.0
"""Seconds. A destination that asks for more is paused until then instead."""

PATIENCE = 900.0
"""Seconds that one batch may spend waiting because it was asked to; then the next run goes on."""


class Stopped(AudienceSyncError):
    """We were told to stop before the batch was handled. Its calls go again, with the same ids."""


class SharedPace:
    """A lane's rate, shared by its workers."""

    def __init__(self, rate: float, elapsed: Callable[[], float]) -> None:
        self._pace = Pace(rate)
        self._elapsed = elapsed
        self._lock = threading.Lock()

    def wait(self, amount: int, sleep: Callable[[float], None]) -> None:
        """Take ``amount`` and wait until it may go, longer if the rate falls or we stand still.

        Args:
            sleep: for so many seconds. What it raises gives back what was taken.
        """
        with self._lock:
            waited_until = self._elapsed()
            self._pace.catch_up(waited_until)
            turn = self._pace.turn(amount, waited_until)
        try:
            while True:
                at = turn.at
                sleep(max(0.0, at - waited_until))
                with self._lock:
                    now = self._elapsed()
                    self._pace.catch_up(now)
                    waited_until = max(at, now)
                    if turn.at <= at:
                        self._pace.gone(turn)
                        return
        except BaseException:
            with self._lock:
                self._pace.give_back(turn)
            raise

    def change(self, rate: float) -> None:
        """Another rate from now on."""
        with self._lock:
            if rate != self._pace.rate:
                self._pace.change(rate, self._elapsed())

    def slow_down(self) -> None:
        with self._lock:
            self._pace.slow_down()

    def climb(self) -> None:
        with self._lock:
            self._pace.climb()


@dataclass(slots=True)
class Sending:
    """Sends batches of spans that are walked together. Used by several workers at once, each with
    a sender of its own.

    ``stop`` ends each batch before its next request, and what was sent of it is sent again.
    ``withdraw`` ends only those of which nothing was sent.
    """

    destination: Destination
    lease: Lease
    pace: SharedPace
    allowance: Allowance
    stop: threading.Event
    withdraw: threading.Event
    max_rejected: int

    def send(self, sender: Sender, batch: Batch, taken: Taken) -> Tally:
        """Every member of ``batch`` handled.

        Args:
            taken: of the quota, for the batch. More is needed for what has to be sent again.

        Raises:
            DestinationPaused, QuotaUsed, LeaseLost, Stopped: the batch counts as not sent.
        """
        tally = Tally(last_user_id=batch.last_user_id)
        try:
            self._refuse(batch.refusals, tally)
            if batch.members:
                self._send_or_split(sender, batch.members, tally, taken)
        finally:
            taken.line.leave()
            self.allowance.put_back(taken)
        return tally

    def _send_or_split(
        self, sender: Sender, members: Sequence[MemberCalls], tally: Tally, taken: Taken
    ) -> None:
        try:
            sent = self._send_patiently(sender, members, taken)
        except BadCalls as refused:
            if len(members) > 1:
                half = len(members) // 2
                self._send_or_split(sender, members[:half], tally, taken)
                self._send_or_split(sender, members[half:], tally, taken)
                return
            self._refuse([_rejection(members[0], refused)], tally)
            return
        tally.accepted += len(members) - len(sent.refusals)
        tally.contacts += sent.contacts
        tally.saved += sent.saved
        self._refuse(sent.refusals, tally)

    def _refuse(self, refusals: Iterable[Refusal], tally: Tally) -> None:
        tally.refuse(refusals)
        if len(tally.rejected) > self.max_rejected:
            raise too_many_rejections(self.destination.name, self.max_rejected) from None

    def _send_patiently(self, sender: Sender, members: Sequence[MemberCalls], taken: Taken) -> Sent:
        failures, waited = 0, 0.0
        last = 0

        def may_send(amount: int) -> None:
            nonlocal last
            self._may_send(amount, taken)
            last = amount

        while True:
            last = 0  # of this try: what left us before costs what it cost
            try:
                sent = sender.send(members, may_send)
            except RetryLater as later:
                taken.amount += last if later.unsent else 0
                if later.slow_down:
                    self.pace.slow_down()
                # A Retry-After of 0 asks for no wait, so it is a failure like any other.
                failures += 0 if later.after else 1
                pause = self._delay(later, failures)
                waited += pause if later.after else 0.0
                if failures >= MAX_ATTEMPTS or waited > PATIENCE:
                    raise DestinationPaused(
                        f"{self.destination.name} is not available: {later}",
                        hint="nothing is lost; the next run goes on where this one stopped",
                    ) from None
                self._sleep(pause, taken)
            else:
                self.pace.climb()
                return sent

    def _delay(self, later: RetryLater, failures: int) -> float:
        if later.after is not None and later.after > LONGEST_WAIT:
            raise DestinationPaused(
                f"{self.destination.name} asks to wait {later.after:,.0f} s", seconds=later.after
            ) from None
        return max(later.after or 0.0, backoff(failures, random.random()))

    def _may_send(self, amount: int, taken: Taken) -> None:
        """Wait for the rate; then only of the quota, and with a lease that outlives the request."""
        taken.line.wait()
        self.pace.wait(amount, lambda seconds: self._sleep(seconds, taken))
        self.allowance.use(taken, amount)
        if self.lease.remaining() <= self.destination.deadline:
            raise LeaseLost(f"the lease {self.lease.name} was not renewed in time")
        taken.has_begun = True
        taken.line.leave()

    def _sleep(self, seconds: float, taken: Taken) -> None:
        over = self.stop if taken.has_begun else self.withdraw
        if over.wait(seconds) if seconds > 0 else over.is_set():
            raise Stopped("stopping")


def _rejection(member: MemberCalls, refused: BadCalls) -> Refusal:
    calls = len(member.bodies)
    together = f", its {calls} calls in one request" if calls > 1 else ""
    return Refusal(user_id=member.user_id, reason=f"{refused}{together}")


def too_many_rejections(destination: str, limit: int) -> DestinationPaused:
    return DestinationPaused(
        f"{destination} rejected more than {limit:,} members of one delivery: "
        "that is a broken set-up, not bad members",
        hint="nothing of it is counted as told; look at the destination's settings",
    )
