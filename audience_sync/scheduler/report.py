"""What the daemon did, in its log: audiences, destinations and counts, never a person."""

from __future__ import annotations

import threading
from typing import Any

import structlog

from audience_sync.errors import AudienceSyncError, DestinationPaused
from audience_sync.pipeline.captures import CaptureOutcome
from audience_sync.pipeline.delivered import Delivered

log = structlog.get_logger("audience_sync")

QUIET = ("not due", "leased")
"""Somebody else's work, or nobody's yet."""


def captured(outcome: CaptureOutcome) -> None:
    """One line for each capture that was tried."""
    if outcome.outcome in QUIET:
        return
    said = {"audience": outcome.audience, "outcome": outcome.outcome, **_counts(outcome)}
    if outcome.outcome == "held":
        plan = said["plan"]
        log.warning("capture held", **said, hint=f"audience-sync approve {plan}")
    elif outcome.error is not None:
        log.error("capture failed", **said, **error_said(outcome.error))
    else:
        log.info("captured", **said)


def delivered(done: Delivered) -> None:
    """One line for each span of a lane run, when it is known what became of it."""
    span = done.span
    said: dict[str, Any] = {
        "audience": span.audience,
        "destination": span.destination,
        "lane": str(span.lane),
        "from_seq": span.from_seq,
        "to_seq": span.to_seq,
        "outcome": done.outcome,
        "run": done.run,
        "accepted": done.accepted,
        "rejected": done.rejected,
        "skipped": done.skipped,
        "remaining": span.books.remaining,
        **({"saved": done.saved} if done.saved else {}),
    }
    if done.outcome == "held":
        log.warning("delivery held", **said, hint=f"audience-sync approve {span.plan_id}")
    elif done.outcome == "failed":
        log.error("delivery failed", **said, **error_said(done.error))
    elif isinstance(done.error, DestinationPaused):
        log.warning("delivery paused", **said, **error_said(done.error))
    else:
        log.info("delivered", **said, **error_said(done.error))


class OnceEach:
    """Says of each name only what is new: what is the same at every look would fill the log."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}
        self._lock = threading.Lock()

    def is_news(self, name: str, text: str | None) -> bool:
        with self._lock:
            before = self._said.get(name)
            if text is None:
                self._said.pop(name, None)
            else:
                self._said[name] = text
        return text is not None and text != before


def left_out(refusal: CaptureOutcome) -> None:
    """An audience that is neither captured nor told, and why."""
    said = {"audience": refusal.audience, "outcome": refusal.outcome}
    if refusal.error is not None:
        log.error("left out", **said, **error_said(refusal.error))
    else:
        log.info("left out", **said, why=refusal.why, hint=refusal.ends)


def _counts(outcome: CaptureOutcome) -> dict[str, Any]:
    captured = outcome.captured
    if captured is None:
        return {}
    examined, comparison = captured.examined, captured.examined.comparison
    return {
        "seq": captured.snapshot.seq if captured.snapshot else examined.from_seq,
        "entered": comparison.counts.entered,
        "exited": comparison.counts.exited,
        "updated": comparison.counts.updated,
        "members": comparison.counts.members,
        "refused": comparison.refused.total,
        "plan": examined.plan_id,
        **({"held_for": list(examined.verdict.reasons)} if examined.verdict.reasons else {}),
    }


def error_said(error: AudienceSyncError | None) -> dict[str, Any]:
    """``error`` and ``hint`` of a line in the log."""
    if error is None:
        return {}
    return {"error": str(error), **({"hint": error.hint} if error.hint else {})}


def problems(error: AudienceSyncError) -> dict[str, Any]:
    """``problems`` and ``hint`` of a line in the log: a configuration can have several."""
    found = list(getattr(error, "problems", (str(error),)))
    return {"problems": found, **({"hint": error.hint} if error.hint else {})}
