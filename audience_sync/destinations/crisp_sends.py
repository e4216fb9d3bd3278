"""How many requests ``bulk`` takes: those that members share, and of whom they do not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from audience_sync.destinations.crisp_bulk import CLOSELY, LOOKED_AT
from audience_sync.destinations.crisp_sharing import Parts, arranged


@dataclass(frozen=True, kw_only=True, slots=True)
class Foreseen:
    """A member.

    Args:
        parts: that are all the member needs; empty: there is more.
        people_id: whose profile it is; two users of one profile are told one by one.
        requests: told alone.
    """

    parts: Parts
    people_id: str | None
    requests: int


@dataclass(kw_only=True, slots=True)
class Sends:
    """Of one process, which looks at the first shared requests more closely than at later ones."""

    _requests: int = 0
    _looked_at: int = 0
    _open: list[Foreseen] = field(default_factory=list)

    def add(self, member: Foreseen) -> None:
        self._open.append(member)

    def requests(self) -> int:
        """Of all that were added."""
        self.end()
        return self._requests

    def end(self) -> None:
        """Who is added later is not looked at together with those so far."""
        shared = Counter(member.people_id or "" for member in self._open)
        shared[""] = 0  # of several who are not known, none is another
        sharing = arranged([m.parts if shared[m.people_id or ""] < 2 else () for m in self._open])
        told = {place for one in sharing for place in one.members}
        alone = (one.requests for place, one in enumerate(self._open) if place not in told)
        self._requests += sum(alone) + len(sharing) + self._reads([one.parts for one in sharing])
        self._open = []

    def _reads(self, batches: list[Parts]) -> int:
        """Of people who were told together: see ``Bulk.samples``."""
        closely = batches[: max(LOOKED_AT - self._looked_at, 0)]
        self._looked_at += len(closely)
        others = {*batches[len(closely) :]} - {*closely}
        return CLOSELY * len(closely) + len(others)
