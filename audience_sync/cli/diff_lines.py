"""A difference in words, for the forms that people read."""

from __future__ import annotations

from audience_sync.cli.difference import Difference, Outlook
from audience_sync.cli.forecast import Forecast
from audience_sync.cli.render import duration, number, plural
from audience_sync.domain.guard import Counts


def size(difference: Difference) -> str:
    counts = difference.counts
    if difference.to_seq is not None:
        snapshots = f"#{difference.from_seq} → #{difference.to_seq}   "
        return f"{snapshots}{members(counts)}   {changes(counts)}"
    if not difference.from_seq:
        return f"new   {plural(counts.members, 'member')}"
    return f"{members(counts)}   {changes(counts)}"


def members(counts: Counts) -> str:
    return f"{number(counts.previous)} → {number(counts.members)}"


def changes(counts: Counts) -> str:
    updated = f" ~{number(counts.updated)}" if counts.updated else ""
    return f"+{number(counts.entered)} −{number(counts.exited)}{updated}"


def definition(difference: Difference) -> str:
    changed = definition_changed(difference)
    return f"   definition {changed}" if changed else ""


def definition_changed(difference: Difference) -> str | None:
    if difference.definitions is None:
        return None
    before, after = difference.definitions
    return f"changed ({before[:4]} → {after[:4]})"


def calls(forecast: Forecast) -> str:
    if not forecast.calls:
        return "nothing to tell"
    initial = "initial, " if forecast.lane == "initial" else ""
    initial += "at most " if forecast.at_most else ""
    return (
        f"{initial}{plural(forecast.calls, 'call')}, {plural(forecast.requests, 'request')}, "
        f"about {duration(forecast.seconds)}"
    )


def guard(outlook: Outlook) -> list[str]:
    reasons = list(outlook.held_for)
    reasons += sorted({f.held_for for f in outlook.destinations if f.held_for})
    if reasons:
        return [f"HELD: {reason}" for reason in reasons]
    return [f"ok (exits {outlook.exits}, limit {outlook.limit})"]


def notes(outlook: Outlook) -> list[str]:
    refused = outlook.refused
    found = [f"{number(count)} refused: {why}" for why, count in refused.by_reason.items()]
    if refused.duplicates:
        found.append(f"{plural(refused.duplicates, 'duplicate')} of a user_id, one kept of each")
    return found
