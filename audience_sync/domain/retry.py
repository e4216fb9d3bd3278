"""What an HTTP answer means, and when to try again (facts: Segment's HTTP Tracking API)."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

LONGEST_RETRY_AFTER = 24 * 3600.0
"""Seconds. A larger Retry-After (10^9 has been seen) is believed up to a day."""

MAX_BACKOFF = 60.0


class Answer(StrEnum):
    OK = "ok"
    RETRY = "retry"
    SLOW_DOWN = "slow down"
    TOO_LARGE_OR_BAD = "too large or bad"
    CREDENTIALS = "credentials refused"
    MISCONFIGURED = "misconfigured"


RETRIED = frozenset({408, 410, 425, 460})
NEVER_RETRIED_5XX = frozenset({501, 505, 511})


def classify(status: int) -> Answer:
    """One answer per status code.

    408, 410, 460 and 5xx (but 501, 505, 511) are tried again, as Segment's libraries do. A 400
    or 413 may be the fault of one item. A redirect, a 404 or any other 4xx is a wrong set-up:
    rejecting members for it would lose them.
    """
    if 200 <= status < 300:
        return Answer.OK
    if status in (420, 429):
        return Answer.SLOW_DOWN
    if status in (401, 403):
        return Answer.CREDENTIALS
    if status in (400, 413, 422):
        return Answer.TOO_LARGE_OR_BAD
    if status in RETRIED or (status >= 500 and status not in NEVER_RETRIED_5XX):
        return Answer.RETRY
    return Answer.MISCONFIGURED


def retry_after(text: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for; ``None`` when it is absent or garbage.

    Seconds and HTTP dates are read; negative and past ones are 0; a day is the most.
    """
    if text is None:
        return None
    text = text.strip()
    if text.removeprefix("-").isascii() and text.removeprefix("-").isdigit():
        seconds = float(text)
    else:
        try:
            date = parsedate_to_datetime(text)
        except (ValueError, TypeError, OverflowError):
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        seconds = (date - now).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def backoff(attempt: int, draw: float) -> float:
    """Seconds before try ``attempt + 1``: doubling from 0.1 s, jittered by ``draw`` in [0, 1)."""
    longest = min(MAX_BACKOFF, 0.1 * 2.0 ** min(attempt, 16))
    return longest * (0.5 + draw / 2)
