"""The forms in which ``audience-sync diff`` shows differences.

A reader who leaves early (``head``) ends the command: ``BrokenPipeError`` is let through.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from audience_sync.cli.diff_lines import calls, definition, guard, notes, size, together
from audience_sync.cli.difference import Difference, Outlook, sample
from audience_sync.cli.forecast import LaneForecast
from audience_sync.cli.markdown import MarkdownPrinter
from audience_sync.cli.output import warn, write
from audience_sync.cli.render import left, to_json
from audience_sync.domain.change import Change
from audience_sync.errors import AudienceSyncError


class Printer(Protocol):
    def show(self, difference: Difference) -> None: ...

    def failed(self, audience: str, error: AudienceSyncError) -> None:
        """Say that an audience could not be examined; the others are."""

    def in_all(self, lanes: Sequence[LaneForecast]) -> None:
        """Where several audiences are told together."""

    def end(self) -> None: ...


def _print(line: str) -> None:
    write(line + "\n")


class TablePrinter:
    def __init__(self, members: int) -> None:
        self._members = members
        self._plans: list[tuple[str, str]] = []

    def show(self, difference: Difference) -> None:
        _print(left(difference.audience) + size(difference) + definition(difference))
        outlook = difference.outlook()
        if outlook is not None:
            self._outlook(outlook)
        for change in sample(difference, self._members):
            _print(f"  {left(change.kind, 11)}{change.user_id}")
        if outlook is not None and outlook.plan:
            _print(f"  {left('plan', 11)}{outlook.plan}")
            self._plans.append((difference.audience, outlook.plan))

    def _outlook(self, outlook: Outlook) -> None:
        for forecast in outlook.destinations:
            _print(f"  {left(forecast.destination, 11)}{calls(forecast)}")
        for line in guard(outlook):
            _print(f"  {left('guard', 11)}{line}")
        for line in notes(outlook):
            _print(f"  {left('rows', 11)}{line}")

    def failed(self, audience: str, error: AudienceSyncError) -> None:
        _print(f"{left(audience)}FAILED: {error}")
        if error.hint:
            _print(f"  {error.hint}")

    def in_all(self, lanes: Sequence[LaneForecast]) -> None:
        for lane in lanes:
            _print(left(lane.destination) + together(lane))

    def end(self) -> None:
        if self._plans:
            keys = " ".join(key for key, _ in self._plans)
            plans = " ".join(f"--plan {plan}" for _, plan in self._plans)
            _print(f"exactly this: audience-sync sync {keys} {plans}")


class JsonPrinter:
    def __init__(self, members: int) -> None:
        self._members = members
        self._audiences: list[dict[str, Any]] = []
        self._in_all: Sequence[LaneForecast] = ()

    def show(self, difference: Difference) -> None:
        counts, outlook = difference.counts, difference.outlook()
        to_seq = {} if outlook else {"to_seq": difference.to_seq}
        shown: dict[str, Any] = {
            "audience": difference.audience,
            "name": difference.name,
            "from_seq": difference.from_seq,
            **to_seq,
            "members": counts.members,
            "previous": counts.previous,
            "entered": counts.entered,
            "exited": counts.exited,
            "updated": counts.updated,
        }
        shown |= _outlook(outlook) if outlook else {}
        if self._members:
            changes = sample(difference, self._members)
            shown["sample"] = [_listed(difference, change) for change in changes]
        self._audiences.append(shown)

    def failed(self, audience: str, error: AudienceSyncError) -> None:
        failure = {"audience": audience, "error": str(error), "hint": error.hint}
        self._audiences.append(failure)

    def in_all(self, lanes: Sequence[LaneForecast]) -> None:
        self._in_all = lanes

    def end(self) -> None:
        _print(to_json({"audiences": self._audiences, "in_all": self._in_all}))


def _outlook(outlook: Outlook) -> dict[str, Any]:
    return {
        "refused": outlook.refused.total,
        "duplicates": outlook.refused.duplicates,
        "plan": outlook.plan,
        "held_for": list(outlook.held_for),
        "destinations": outlook.destinations,
    }


class LinePrinter:
    """Every change as a line of JSON."""

    def __init__(self, _members: int) -> None:
        """All members are shown anyway."""

    def show(self, difference: Difference) -> None:
        for change in difference.changes():
            self.line(_listed(difference, change))

    def line(self, listed: Mapping[str, Any]) -> None:
        write(to_json(listed) + "\n", flush=False)

    def failed(self, audience: str, error: AudienceSyncError) -> None:
        warn(f"{audience}: {error}")
        if error.hint:
            warn(f"  {error.hint}")

    def in_all(self, lanes: Sequence[LaneForecast]) -> None:
        """Nothing was forecast."""

    def end(self) -> None:
        write("")


class CsvPrinter(LinePrinter):
    """Every change as a row; what a member carries is JSON within it."""

    def __init__(self, members: int) -> None:
        super().__init__(members)
        self._row(["audience", "user_id", "change", "before", "after"])

    def line(self, listed: Mapping[str, Any]) -> None:
        rows = (listed["before"], listed["after"])
        texts = [None if row is None else to_json(row) for row in rows]
        self._row([listed["audience"], listed["user_id"], listed["change"], *texts])

    def _row(self, cells: list[Any]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        write(text.getvalue(), flush=False)


def _listed(difference: Difference, change: Change) -> dict[str, Any]:
    return {
        "audience": difference.audience,
        "user_id": change.user_id,
        "change": str(change.kind),
        "before": change.before,
        "after": change.after,
    }


# Made with the number of members to show as a sample.
PRINTERS: Mapping[str, Callable[[int], Printer]] = {
    "table": TablePrinter,
    "json": JsonPrinter,
    "ndjson": LinePrinter,
    "csv": CsvPrinter,
    "markdown": MarkdownPrinter,
}
