"""Differences for a comment on a pull request: a table for each audience, members only if asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from audience_sync.cli.diff_lines import (
    calls,
    changes,
    definition_changed,
    guard,
    members,
    notes,
    together,
)
from audience_sync.cli.difference import Difference, Outlook, sample
from audience_sync.cli.forecast import LaneForecast
from audience_sync.cli.output import write
from audience_sync.cli.render import left
from audience_sync.errors import AudienceSyncError

SPECIAL = re.compile(r"([\\`*_\[\]<>|~#])")
FENCE = "~~~~"
"""No line within begins with it: each starts with a word of ours."""


class MarkdownPrinter:
    """``members``: so many who change are listed, of each audience."""

    def __init__(self, members: int) -> None:
        self._members = members
        self._plans: list[tuple[str, str]] = []

    def show(self, difference: Difference) -> None:
        outlook = difference.outlook()
        _heading(difference.audience, difference.name)
        for what, text in _rows(difference, outlook):
            write(f"| {plain(what)} | {text} |\n")
        write("\n")
        listed = [f"{left(c.kind, 11)}{c.user_id}" for c in sample(difference, self._members)]
        if listed:
            _block(listed)
        if outlook is not None and outlook.plan:
            self._plans.append((difference.audience, outlook.plan))

    def failed(self, audience: str, error: AudienceSyncError) -> None:
        _heading(audience, audience)
        hint = f" ({plain(error.hint)})" if error.hint else ""
        write(f"| **failed** | {plain(str(error))}{hint} |\n\n")

    def in_all(self, lanes: Sequence[LaneForecast]) -> None:
        for lane in lanes:
            write(f"{plain(lane.destination)}: {plain(together(lane))}\n\n")

    def end(self) -> None:
        if self._plans:
            keys = " ".join(key for key, _ in self._plans)
            plans = " ".join(f"--plan {plan}" for _, plan in self._plans)
            write("Exactly this:\n\n")
            _block([f"audience-sync sync {keys} {plans}"])


def plain(text: str) -> str:
    """Text that Markdown shows as it is, in one line; inside a table too."""
    return SPECIAL.sub(r"\\\1", " ".join(text.splitlines()))


def _heading(audience: str, name: str) -> None:
    title = plain(audience) if name == audience else f"{plain(audience)}: {plain(name)}"
    write(f"### {title}\n\n| | |\n|---|---|\n")


def _rows(difference: Difference, outlook: Outlook | None) -> Iterator[tuple[str, str]]:
    counts = difference.counts
    if difference.to_seq is not None:
        yield "snapshots", f"{difference.from_seq} → {difference.to_seq}"
    yield "members", members(counts)
    yield "changes", plain(changes(counts))
    if changed := definition_changed(difference):
        yield "definition", plain(changed)
    if outlook is None:
        return
    for forecast in outlook.destinations:
        yield forecast.destination, plain(calls(forecast))
    for line in guard(outlook):
        yield "guard", f"**{plain(line)}**" if line.startswith("HELD") else plain(line)
    for line in notes(outlook):
        yield "rows", plain(line)
    if outlook.plan:
        yield "plan", f"`{outlook.plan}`"


def _block(lines: list[str]) -> None:
    write(FENCE + "\n" + "".join(f"{line}\n" for line in lines) + FENCE + "\n\n")
