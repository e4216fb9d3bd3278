"""What ``explain`` found, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from audience_sync.cli.render import WIDTH, clock_time, left, number, to_json

if TYPE_CHECKING:
    from audience_sync.cli.episodes import Episode, Place
    from audience_sync.domain.told import Said, Unsaid

HASH = 4
"""Characters of a definition's hash that are shown."""
SAME_TIME = 60.0
"""Seconds within which a delivery is one point in time to a person."""


def lines(user_id: str, episodes: Sequence[Episode], now: datetime) -> Iterator[str]:
    yield user_id
    width = max(WIDTH, *(len(episode.audience) + 2 for episode in episodes))
    for episode in episodes:
        yield f"{left(episode.audience, width)}{_membership(episode, now)}"
        if columns := episode.biography.last_known:
            word = "carries" if episode.member else "carried"
            texts = ", ".join(f"{name} {to_json(value)}" for name, value in columns.items())
            yield f"  {left(word, 11)}{texts}"
        for place in episode.places:
            mark = "!" if place.in_trouble else " "
            yield f"{mark} {left(place.name, 11)}{'; '.join(_telling(place, now))}"


def _membership(episode: Episode, now: datetime) -> str:
    turned, kept_since = episode.turned, episode.kept_since
    word = "in since" if episode.member else "left"
    if turned is None:
        return f"{word} before {clock_time(kept_since.captured_at, now)} (#{kept_since.seq})"
    definition = turned.definition[:HASH]
    when = clock_time(turned.captured_at, now)
    return f"{word} {when} (#{turned.seq}, definition {definition})"


def _telling(place: Place, now: datetime) -> Iterator[str]:
    telling = place.telling
    for unsaid in telling.unsaid:
        yield _unsaid(unsaid, now)
    if telling.said is not None:
        yield _said(telling.said, now)
    elif not telling.unsaid:
        yield "told nothing that is still known"
    if place.paused and any(unsaid.state in ("waits", "open") for unsaid in telling.unsaid):
        yield f"paused: {place.paused}"
    if not place.configured:
        yield "nothing more is told there"


def _said(said: Said, now: datetime) -> str:
    value = to_json(said.value)
    if said.after is None:
        return f"told {value}" + (f" before {clock_time(said.by, now)}" if said.by else "")
    if said.by is None:
        return f"told {value} since {clock_time(said.after, now)}"
    if (said.by - said.after).total_seconds() < SAME_TIME:
        return f"told {value} {clock_time(said.by, now)}"
    return f"told {value} between {clock_time(said.after, now)} and {clock_time(said.by, now)}"


def _unsaid(unsaid: Unsaid, now: datetime) -> str:
    value, delivery = to_json(unsaid.value), unsaid.delivery
    if delivery is not None and unsaid.state == "open":
        books = delivery.books
        return (
            f"being told {value} ({delivery.kind}, {number(books.handled)} of "
            f"{number(books.total)}, position not there yet)"
        )
    if unsaid.state == "held":
        return f"{value} held: {unsaid.reason}"
    if unsaid.at is not None:
        again = ", told again by the next run" if unsaid.retry else ""
        return f"{unsaid.state} {clock_time(unsaid.at, now)}: {unsaid.reason}{again}"
    return f"{value} waits for the next run"


def listed(user_id: str, episodes: Sequence[Episode]) -> dict[str, Any]:
    """The shape of ``--json``."""
    return {"user_id": user_id, "audiences": [_episode(episode) for episode in episodes]}


def _episode(episode: Episode) -> dict[str, Any]:
    biography = episode.biography
    return {
        "audience": episode.audience,
        "name": episode.name,
        "kind": episode.kind,
        "member": episode.member,
        "since" if episode.member else "until": episode.turned,
        "kept_since": episode.kept_since,
        "columns": biography.last_known,
        "changes": [
            asdict(episode.moments[seq])
            | {"change": change.kind, "before": change.before, "after": change.after}
            for seq, change in biography.changes
        ],
        "destinations": [_place(place) for place in episode.places],
    }


def _place(place: Place) -> dict[str, Any]:
    return {
        "name": place.name,
        "configured": place.configured,
        "paused": place.paused,
        "told": place.telling.said,
        "untold": [_untold(unsaid) for unsaid in place.telling.unsaid],
    }


def _untold(unsaid: Unsaid) -> dict[str, Any]:
    delivery = unsaid.delivery
    return {
        "state": unsaid.state,
        "value": unsaid.value,
        "reason": unsaid.reason,
        "at": unsaid.at,
        "retry": unsaid.retry,
        "lane": delivery.lane if delivery else None,
        "total": delivery.books.total if delivery else None,
        "remaining": delivery.books.remaining if delivery else None,
    }
