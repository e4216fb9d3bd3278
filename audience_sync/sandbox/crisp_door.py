"""Who may ask Crisp, how often, and what is remembered of an answer."""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable

from audience_sync.sandbox.allowance import Quotas, Rate
from audience_sync.sandbox.asked import Answer, Asked
from audience_sync.sandbox.crisp import refusal
from audience_sync.sandbox.options import Options

REMEMBERED = 10_000
"""Answers that may be stale."""


class CrispDoor:
    """Asked before each request is carried out."""

    def __init__(self, options: Options, quotas: Quotas, elapsed: Callable[[], float]) -> None:
        self._options = options
        self._quotas = quotas
        self._rate = Rate(options.rate, elapsed)
        expected = b64encode(options.crisp_key.encode()).decode()
        self._authorization = f"Basic {expected}"

    def refusal(self, asked: Asked) -> Answer | None:
        """Only a request that is let in counts for the quota."""
        given = asked.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), self._authorization.encode()):
            return refusal(401, "invalid_session", "not the key of this sandbox")
        tier = asked.headers.get("x-crisp-tier", "")
        if tier not in self._options.tiers:
            return refusal(403, "not_allowed", "X-Crisp-Tier is missing or not that of the key")
        if asked.segments[1] == "plugin" and tier != "plugin":
            return refusal(403, "not_allowed", "only the tier plugin may list websites")
        if self._rate.take():
            return refusal(429, "rate_limited", "more than --rate allows")
        if not self._quotas.take(tier):
            return refusal(423, "quota_limit_exceeded", f"the quota of the tier {tier} is used up")
        return None


class Stale:
    """Answers to GET and HEAD are given again for ``seconds``, whatever was written since."""

    def __init__(self, seconds: float, elapsed: Callable[[], float]) -> None:
        self._seconds = seconds
        self._elapsed = elapsed
        self._answers: OrderedDict[tuple[str, str], tuple[float, Answer]] = OrderedDict()

    def get(self, asked: Asked) -> Answer | None:
        at, answer = self._answers.get((asked.method, asked.path), (0.0, None))
        return answer if self._elapsed() < at else None

    def put(self, asked: Asked, answer: Answer) -> None:
        if self._seconds and asked.method in ("GET", "HEAD"):
            self._answers[asked.method, asked.path] = (self._elapsed() + self._seconds, answer)
            while len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)

    def clear(self) -> None:
        self._answers.clear()
