"""The forms in which ``audience-sync diff`` shows what it examined.

A reader who leaves early (``head``) ends the command: ``BrokenPipeError`` is let through.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from audience_sync.cli.forecast import changes_of
from audience_sync.cli.output import warn, write
from audience_sync.cli.render import duration, left, number, plural, to_json
from audience_sync.domain.change import Change
from audience_sync.domain.guard import percent
from audience_sync.errors import SourceFailed

if TYPE_CHECKING:
    from audience_sync.bootstrap import App
    from audience_sync.cli.forecast import Forecast
    from audience_sync.pipeline.capture import Examined
    from audience_sync.pipeline.captures import Configured


class Printer(Protocol):
    def show(self, app: App, examined: Examined) -> None: ...

    def failed(self, configured: Configured, error: SourceFailed) -> None:
        """Say that an audience could not be examined; the others are."""

    def end(self) -> None: ...


def sample(examined: Examined, members: int) -> Iterator[Change]:
    """The first ``members`` who change."""
    if members:
        with closing(changes_of(examined)) as changes:
            yield from islice(changes, members)


def _print(line: str) -> None:
    write(line + "\n")


class TablePrinter:
    def __init__(self, members: int) -> None:
        self._members = members
        self._plans: list[tuple[str, str]] = []

    def show(self, app: App, examined: Examined) -> None:
        from audience_sync.cli.forecast import forecasts

        counts = examined.comparison.counts
        if examined.current is None:
            size = f"new   {plural(counts.members, 'member')}"
        else:
            size = f"{number(counts.previous)} → {number(counts.members)}   "
            size += f"+{number(counts.entered)} −{number(counts.exited)}"
            size += f" ~{number(counts.updated)}" if counts.updated else ""
        _print(left(examined.audience.key) + size + _definition(examined))
        expected = forecasts(app, examined)
        for forecast in expected:
            _print(f"  {left(forecast.destination, 11)}{_calls(forecast)}")
        for line in _guard(app, examined, expected):
            _print(f"  {left('guard', 11)}{line}")
        for line in _notes(examined):
            _print(f"  {left('rows', 11)}{line}")
        self._show_members(examined)
        if examined.changes_something:
            _print(f"  {left('plan', 11)}{examined.plan_id}")
            self._plans.append((examined.audience.key, examined.plan_id))

    def _show_members(self, examined: Examined) -> None:
        for change in sample(examined, self._members):
            _print(f"  {left(change.kind, 11)}{change.user_id}")

    def failed(self, configured: Configured, error: SourceFailed) -> None:
        _print(f"{left(configured.audience.key)}FAILED: {error}")
        if error.hint:
            _print(f"  {error.hint}")

    def end(self) -> None:
        if self._plans:
            keys = " ".join(key for key, _ in self._plans)
            plans = " ".join(f"--plan {plan}" for _, plan in self._plans)
            _print(f"exactly this: audience-sync sync {keys} {plans}")


def _definition(examined: Examined) -> str:
    current = examined.current
    if current is None or current.query_hash == examined.query_hash:
        return ""
    return f"   definition changed ({current.query_hash[:4]} → {examined.query_hash[:4]})"


def _calls(forecast: Forecast) -> str:
    if not forecast.calls:
        return "nothing to tell"
    initial = "initial, " if forecast.lane == "initial" else ""
    initial += "at most " if forecast.at_most else ""
    return (
        f"{initial}{plural(forecast.calls, 'call')}, {plural(forecast.requests, 'request')}, "
        f"about {duration(forecast.seconds)}"
    )


def _guard(app: App, examined: Examined, expected: list[Forecast]) -> list[str]:
    reasons = list(examined.verdict.reasons)
    reasons += sorted({f.held_for for f in expected if f.held_for})
    if reasons:
        return [f"HELD: {reason}" for reason in reasons]
    counts = examined.comparison.counts
    limit = percent(app.audiences[examined.audience.key].limits.max_exits)
    exits = percent(counts.exited / counts.previous) if counts.previous else "0 %"
    return [f"ok (exits {exits}, limit {limit})"]


def _notes(examined: Examined) -> list[str]:
    refused = examined.comparison.refused
    notes = [f"{number(count)} refused: {why}" for why, count in refused.by_reason.items()]
    if refused.duplicates:
        notes.append(f"{plural(refused.duplicates, 'duplicate')} of a user_id, one kept of each")
    return notes


class JsonPrinter:
    def __init__(self, members: int) -> None:
        self._members = members
        self._audiences: list[dict[str, Any]] = []

    def show(self, app: App, examined: Examined) -> None:
        from audience_sync.cli.forecast import forecasts

        counts, refused = examined.comparison.counts, examined.comparison.refused
        expected = forecasts(app, examined)
        shown: dict[str, Any] = {
            "audience": examined.audience.key,
            "name": examined.audience.name,
            "from_seq": examined.from_seq,
            "members": counts.members,
            "previous": counts.previous,
            "entered": counts.entered,
            "exited": counts.exited,
            "updated": counts.updated,
            "refused": refused.total,
            "duplicates": refused.duplicates,
            "plan": examined.plan_id if examined.changes_something else None,
            "held_for": list(examined.verdict.reasons),
            "destinations": expected,
        }
        if self._members:
            changes = sample(examined, self._members)
            shown["sample"] = [_listed(examined, change) for change in changes]
        self._audiences.append(shown)

    def failed(self, configured: Configured, error: SourceFailed) -> None:
        failure = {"audience": configured.audience.key, "error": str(error), "hint": error.hint}
        self._audiences.append(failure)

    def end(self) -> None:
        _print(to_json({"audiences": self._audiences}))


class LinePrinter:
    """Every change as a line of JSON."""

    def __init__(self, _members: int) -> None:
        """All members are shown anyway."""

    def show(self, app: App, examined: Examined) -> None:
        for change in changes_of(examined):
            self.line(_listed(examined, change))

    def line(self, listed: Mapping[str, Any]) -> None:
        write(to_json(listed) + "\n", flush=False)

    def failed(self, configured: Configured, error: SourceFailed) -> None:
        warn(f"{configured.audience.key}: {error}")
        if error.hint:
            warn(f"  {error.hint}")

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


def _listed(examined: Examined, change: Change) -> dict[str, Any]:
    return {
        "audience": examined.audience.key,
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
}
