"""The guard: says go or held for a capture, from counts and limits alone (promise P11)."""

from __future__ import annotations

from dataclasses import dataclass

ALWAYS_SMALL = 10
"""Fewer exits than this never hold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Shares are fractions (0.2 is 20 %); ``floor`` and ``max_initial`` are members."""

    max_exits: float = 0.2
    max_exits_24h: float = 0.4
    max_entries: float = 2.0
    floor: int = 100
    max_initial: int = 100_000
    max_refused_rows: float = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """What one comparison found, in members. ``previous + entered - exited`` is ``members``."""

    previous: int
    entered: int
    exited: int
    updated: int
    members: int

    @property
    def changed(self) -> bool:
        return bool(self.entered or self.exited or self.updated)


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The last 24 h of cycle time before this capture."""

    members_at_start: int
    unapproved_exits: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """``reasons`` is empty when the plan may go; otherwise each is one sentence with the limit."""

    reasons: tuple[str, ...]

    @property
    def held(self) -> bool:
        return bool(self.reasons)


def judge(counts: Counts, window: Window, limits: Limits, *, first: bool) -> Verdict:
    """Go or held.

    Args:
        first: there is no snapshot yet; nobody can leave, and the size of a first delivery is
            the delivery's question (``holds_initial``).
    """
    if first:
        return Verdict(reasons=())
    if emptied := _emptied(counts):
        return Verdict(reasons=(emptied,))
    reasons = (
        _too_many_exits(counts, limits),
        _too_many_exits_24h(counts, window, limits),
        _too_many_entries(counts, limits),
    )
    return Verdict(reasons=tuple(reason for reason in reasons if reason))


def holds_initial(members: int, limits: Limits) -> str | None:
    """Why a first delivery to ``members`` must be approved, or ``None``."""
    if members > limits.max_initial:
        return f"first delivery to {members:,} members (limit {limits.max_initial:,})"
    return None


def allowed_exits(members: int, share: float, floor: int) -> float:
    """Members that may leave. Rounded: 29 of 100 are 29 %, though ``0.29 * 100 < 29``."""
    return max(round(share * members, 6), min(floor, members / 2))


def percent(share: float) -> str:
    """``0.314`` → ``31.4 %``, ``0.2`` → ``20 %``."""
    return f"{share * 100:.1f}".rstrip("0").rstrip(".") + " %"


def _emptied(counts: Counts) -> str | None:
    if counts.previous and not counts.members:
        return f"the source is empty: all {counts.previous:,} would leave"
    return None


def _too_many_exits(counts: Counts, limits: Limits) -> str | None:
    allowed = allowed_exits(counts.previous, limits.max_exits, limits.floor)
    if counts.exited < ALWAYS_SMALL or counts.exited <= allowed:
        return None
    share = percent(counts.exited / counts.previous)
    return f"{share} would leave (limit {percent(limits.max_exits)})"


def _too_many_exits_24h(counts: Counts, window: Window, limits: Limits) -> str | None:
    exits = window.unapproved_exits + counts.exited
    allowed = allowed_exits(window.members_at_start, limits.max_exits_24h, limits.floor)
    if not counts.exited or exits < ALWAYS_SMALL or exits <= allowed:
        return None
    share = percent(exits / max(window.members_at_start, 1))
    return f"{share} would have left within 24 h (limit {percent(limits.max_exits_24h)})"


def _too_many_entries(counts: Counts, limits: Limits) -> str | None:
    allowed = max(limits.max_entries * counts.previous, 10 * limits.floor)
    if not counts.previous or counts.entered <= allowed:
        return None
    return (
        f"{counts.entered:,} would enter an audience of {counts.previous:,} "
        f"(limit {percent(limits.max_entries)})"
    )
