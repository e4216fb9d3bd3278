"""Send one batch until it is accepted, refused member by member, or the destination pauses."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from audience_sync.domain.change import Change
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
from audience_sync.pipeline.ports import Destination, Lease, MemberCalls, Sender, SpanContext

MAX_ATTEMPTS = 10
"""Tries of one request that nobody answered properly; about two minutes with the back-off."""

LONGEST_WAIT = 120.0
"""Seconds. A destination that asks for more is paused until then instead."""

PATIENCE = 900.0
"""Seconds that one batch may spend waiting because it was asked to; then the next run goes on."""


class Stopped(AudienceSyncError):
    """We were told to stop before the batch was handled. Its calls go again, with the same ids."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Consecutive members with their calls, and those among them that cannot be told."""

    last_user_id: str
    members: Sequence[MemberCalls]
    refusals: Sequence[Refusal]


def batches(
    changes: Iterable[Change], destination: Destination, context: SpanContext
) -> Iterator[Batch]:
    """Fill requests up to the destination's limits of calls and bytes, never splitting a member."""
    members: list[MemberCalls] = []
    refusals: list[Refusal] = []
    last, calls, size = "", 0, 0
    for change in changes:
        made = destination.calls(change, context)
        bodies = made.bodies if isinstance(made, MemberCalls) else ()
        added = sum(len(body) for body in bodies)
        full = calls + len(bodies) > destination.max_calls or size + added > destination.max_bytes
        if (members and full) or len(refusals) >= destination.max_calls:
            yield Batch(last_user_id=last, members=members, refusals=refusals)
            members, refusals, calls, size = [], [], 0, 0
        if isinstance(made, MemberCalls):
            members.append(made)
        else:
            refusals.append(made)
        last, calls, size = change.user_id, calls + len(bodies), size + added
    if members or refusals:
        yield Batch(last_user_id=last, members=members, refusals=refusals)


class SharedPace:
    """A lane's rate, shared by its workers."""

    def __init__(self, rate: float, elapsed: Callable[[], float]) -> None:
        self._pace = Pace(rate)
        self._elapsed = elapsed
        self._lock = threading.Lock()

    def wait(self, amount: int) -> float:
        with self._lock:
            return self._pace.wait(amount, self._elapsed())

    def slow_down(self) -> None:
        with self._lock:
            self._pace.slow_down()

    def climb(self) -> None:
        with self._lock:
            self._pace.climb()


@dataclass(slots=True)
class Sending:
    """Sends batches of one span. Used by several workers at once, each with its own sender."""

    destination: Destination
    lease: Lease
    pace: SharedPace
    stop: threading.Event
    max_rejected: int

    def send(self, sender: Sender, batch: Batch) -> Tally:
        """Every member of ``batch`` handled.

        Raises:
            DestinationPaused, LeaseLost, Stopped: the batch counts as not sent.
        """
        if len(batch.refusals) > self.max_rejected:
            raise too_many_rejections(self.destination.name, self.max_rejected)
        tally = Tally(last_user_id=batch.last_user_id, rejected=list(batch.refusals))
        if batch.members:
            self._send_or_split(sender, batch.members, tally)
        return tally

    def _send_or_split(self, sender: Sender, members: Sequence[MemberCalls], tally: Tally) -> None:
        try:
            self._send_patiently(sender, members)
            tally.accepted += len(members)
        except BadCalls as refused:
            if len(members) > 1:
                half = len(members) // 2
                self._send_or_split(sender, members[:half], tally)
                self._send_or_split(sender, members[half:], tally)
                return
            tally.rejected.append(_rejection(members[0], refused))
            if len(tally.rejected) > self.max_rejected:
                raise too_many_rejections(self.destination.name, self.max_rejected) from None

    def _send_patiently(self, sender: Sender, members: Sequence[MemberCalls]) -> None:
        calls = sum(len(member.bodies) for member in members)
        failures, waited = 0, 0.0
        while True:
            self._may_send(calls)
            try:
                sender.send(members)
            except RetryLater as later:
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
                self._sleep(pause)
            else:
                self.pace.climb()
                return

    def _delay(self, later: RetryLater, failures: int) -> float:
        if later.after is not None and later.after > LONGEST_WAIT:
            raise DestinationPaused(
                f"{self.destination.name} asks to wait {later.after:,.0f} s", seconds=later.after
            ) from None
        return max(later.after or 0.0, backoff(failures, random.random()))

    def _may_send(self, amount: int) -> None:
        """Wait for the rate; then only with a lease that outlives the request."""
        self._sleep(self.pace.wait(amount))
        if self.lease.remaining() <= self.destination.deadline:
            raise LeaseLost(f"the lease {self.lease.name} was not renewed in time")

    def _sleep(self, seconds: float) -> None:
        if self.stop.wait(seconds) if seconds > 0 else self.stop.is_set():
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
