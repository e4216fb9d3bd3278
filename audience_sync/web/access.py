"""Who may ask what: by the name they call us, and by their token."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from audience_sync.serving.names import is_ours

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""For whoever restarts us, which has no token and calls us what it likes. They tell nothing."""

METHODS = ("GET", "HEAD")


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """``text`` is one line and repeats nothing of the request."""

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """``token``: who asks must send it, if there is one. ``hosts``: names, in lower case, by which
    we may be called besides those that every machine has."""

    token: str | None = field(repr=False)
    hosts: frozenset[str]

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> Refusal | None:
        """Why a request is not answered; names of ``headers`` are in any case."""
        if method not in METHODS:
            return Refusal(
                status=405, text="only GET and HEAD", headers={"allow": ", ".join(METHODS)}
            )
        if path in OPEN_PATHS:
            return None
        if not self._knows(headers.get("host", "")):
            text = "not known by that name: add it to [status] hosts"
            return Refusal(status=421, text=text)
        if not self._admits(headers.get("authorization", "")):
            wanted = {"www-authenticate": 'Bearer realm="audience-sync"'}
            return Refusal(status=401, text="needs Authorization: Bearer …", headers=wanted)
        return None

    def _knows(self, host: str) -> bool:
        return is_ours(host, self.hosts)

    def _admits(self, authorization: str) -> bool:
        if self.token is None:
            return True
        scheme, _, given = authorization.partition(" ")
        same = hmac.compare_digest(given.strip().encode(), self.token.encode())
        return same and scheme.lower() == "bearer"
