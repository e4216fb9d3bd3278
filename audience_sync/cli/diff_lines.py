"""A difference in words, for the forms that people read."""

from __future__ import annotations

from audience_sync.cli.difference import Difference, Outlook
from audience_sync.cli.forecast import Forecast, LaneForecast
from audience_sync.cli.render import duration, number, plural
from audience_sync.domain.guard import Counts, percent

SMALLEST_SHARE = 0.001


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
    if forecast.quota_share is not None and forecast.quota_share > 1 and forecast.days_with_bulk:
        return f"{'resync, ' if forecast.resync else ''}{_days(forecast)}{_skipped(forecast)}"
    how = "resync, " if forecast.resync else "initial, " if forecast.lane == "initial" else ""
    how += "at most " if forecast.at_most else ""
    return (
        f"{how}{plural(forecast.calls, 'call')}, {_requests(forecast)}, "
        f"{_quota(forecast)}about {duration(forecast.seconds)}{_skipped(forecast)}"
    )


def together(lane: LaneForecast) -> str:
    """Of several audiences: ``in all 203 requests, 12 saved, as …``."""
    which = "initial, " if lane.lane == "initial" else "afterwards, " if lane.later else ""
    saved = f", {number(lane.saved)} saved, as members changed in several audiences"
    return f"{which}in all {_requests(lane)}{saved if lane.saved else ''}"


def _requests(forecast: Forecast | LaneForecast) -> str:
    least, most = forecast.requests_at_least, forecast.requests
    if forecast.bulk and forecast.requests_with_bulk is not None:
        least, most = forecast.requests_with_bulk_at_least or 0, forecast.requests_with_bulk
    return (
        plural(most, "request") if least == most else f"{number(least)} to {number(most)} requests"
    )


def _days(forecast: Forecast) -> str:
    bulk = _from_to(forecast.days_with_bulk_at_least or 0, forecast.days_with_bulk or 0)
    return f"one by one {_from_to(forecast.days_at_least, forecast.days)}, with bulk {bulk}"


def _from_to(least: int, most: int) -> str:
    return plural(most, "day") if least == most else f"{number(least)} to {plural(most, 'day')}"


def _skipped(forecast: Forecast) -> str:
    skipped = forecast.skipped
    return f"; {plural(skipped, 'member')} without an e-mail cannot be told yet" if skipped else ""


def _quota(forecast: Forecast) -> str:
    """Nothing where it takes several days, which the time says."""
    share = forecast.quota_share
    if share is None or share > 1:
        return ""
    return f"{percent(share) if share >= SMALLEST_SHARE else 'under 0.1 %'} of today's quota, "


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
