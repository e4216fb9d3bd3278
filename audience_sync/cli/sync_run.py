"""One ``sync``: the captures, then the deliveries, and what became of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from audience_sync.cli.progress import Progress
from audience_sync.domain.audience import AudienceKey
from audience_sync.errors import AudienceSyncError, Held, LeaseTaken, worst

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.pipeline.admission import Admission
    from audience_sync.pipeline.captures import CaptureOutcome, Captures, Configured
    from audience_sync.pipeline.delivered import Delivered


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What one ``sync`` was asked for."""

    patterns: Sequence[str]
    everyone: bool
    cycle_time: datetime
    explicit_now: bool
    plans: Collection[str]

    @property
    def forced(self) -> bool:
        """Named audiences, all, or a plan: captured whether due or not."""
        return bool(self.patterns or self.everyone or self.plans)


class SyncRun:
    """Works in one thread; read what became of it when ``work`` has returned.

    ``failure``: what ended the run early, so that what was done until then is still told.
    """

    def __init__(self, app: App, order: Order, picked: Sequence[Configured]) -> None:
        self.captured: list[CaptureOutcome] = []
        self.delivered: list[Delivered] = []
        self.failure: AudienceSyncError | None = None
        self._app = app
        self._order = order
        self._picked = picked
        self._started = time.monotonic()

    def work(self, stop: threading.Event) -> None:
        try:
            self._retire()
            self._capture(stop)
            with Progress() as progress:
                deliveries = self._app.deliveries(progress.show)
                self.delivered += deliveries.deliver(stop, self._only())
        except AudienceSyncError as error:
            self.failure = error

    def stopped(self) -> dict[str, datetime]:
        """Configured destinations that a person has paused, and since when."""
        stopped = self._app.orders.stopped()
        return {name: since for name, since in stopped.items() if name in self._app.destinations}

    def seconds(self) -> float:
        return time.monotonic() - self._started

    def not_due(self) -> list[tuple[str, datetime]]:
        """When the audiences that were not captured are due, soonest first."""
        captured = {outcome.audience for outcome in self.captured}
        keys = [c.audience.key for c in self._picked if c.audience.key not in captured]
        times = [(str(key), self._app.snapshots.next_due(key)) for key in keys]
        return sorted(((key, due) for key, due in times if due), key=lambda pair: pair[1])

    def exit_code(self) -> int:
        errors = [outcome.error for outcome in self.captured]
        errors += [delivered.error for delivered in self.delivered]
        codes = [error.exit_code for error in (*errors, self.failure) if error is not None]
        if not self._order.patterns:
            # What was not named is somebody else's work then, and in order.
            codes = [code for code in codes if code != LeaseTaken.exit_code]
        outcomes = [captured.outcome for captured in self.captured]
        outcomes += [delivered.outcome for delivered in self.delivered]
        codes += [Held.exit_code for outcome in outcomes if outcome == "held"]
        failed = self.failure.exit_code if self.failure is not None else 0
        return worst(codes) or failed

    def _only(self) -> set[AudienceKey] | None:
        """Without names, also audiences are told that are retired and no longer configured."""
        if not (self._order.patterns or self._order.plans):
            return None
        return {configured.audience.key for configured in self._picked}

    def _retire(self) -> None:
        """Audiences whose file says so; what they were told is taken back by the deliveries."""
        for configured in self._app.admission().to_retire(self._picked):
            self.captured.append(self._app.retire_by_file(configured))

    def _refused(self, admission: Admission, configured: Configured) -> bool:
        """Whether an audience is left out; nobody is without a word."""
        refusal = admission.refusal(configured)
        if refusal is not None:
            told = {outcome.audience for outcome in self.captured}
            self.captured += [refusal] if refusal.audience not in told else []
        return refusal is not None

    def _capture(self, stop: threading.Event) -> None:
        captures, admission = self._app.captures(), self._app.admission()
        for configured in self._picked:
            if stop.is_set():
                break
            if self._refused(admission, configured):
                continue
            if self._order.forced or captures.due(configured, self._order.cycle_time):
                self.captured.append(self._captured(captures, configured))
            else:
                self._waits(configured.audience.key)
        self._leave_out_other_plans()

    def _waits(self, key: AudienceKey) -> None:
        """One that is not due is no news, but where somebody ordered a resync, and waits."""
        from audience_sync.pipeline.captures import CaptureOutcome
        from audience_sync.store import overview

        if any(key == waiting for waiting, _ in overview.resyncs(self._app.database)):
            why, ends = "it is not due at this cycle time", f"audience-sync sync {key}"
            self.captured.append(CaptureOutcome(audience=key, outcome="waits", why=why, ends=ends))

    def _captured(self, captures: Captures, configured: Configured) -> CaptureOutcome:
        return captures.capture(
            configured,
            self._order.cycle_time,
            plans=self._order.plans,
            only_if_due=not self._order.forced,
        )

    def _leave_out_other_plans(self) -> None:
        """With plans and no names all audiences are examined; only a plan nobody has is news."""
        order = self._order
        found = {o.captured.examined.plan_id for o in self.captured if o.captured}
        if order.plans and not order.patterns and found.issuperset(order.plans):
            self.captured = [o for o in self.captured if o.outcome != "other plan"]
