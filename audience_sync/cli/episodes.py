"""Users in audiences, as values: what ``explain`` shows, read from the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audience_sync.domain.audience import AudienceKey, Kind, Seq, Tell
from audience_sync.domain.biography import Biography
from audience_sync.domain.forgotten import reference
from audience_sync.domain.told import Telling, what_was_told

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.domain.told import Delivery
    from audience_sync.store.events import Moment
    from audience_sync.store.overview import AudienceState

TROUBLE = frozenset({"held", "rejected", "skipped"})
"""What of a telling a person should see first."""
FIRST = Seq(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """``paused``: why nothing is sent there now."""

    name: str
    configured: bool
    paused: str | None
    telling: Telling

    @property
    def in_trouble(self) -> bool:
        return any(unsaid.state in TROUBLE for unsaid in self.telling.unsaid)


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """One user in one audience; ``moments``: the snapshots that its biography names."""

    audience: AudienceKey
    name: str
    kind: Kind
    biography: Biography
    moments: Mapping[Seq, Moment]
    places: tuple[Place, ...]

    @property
    def member(self) -> bool:
        return self.biography.now is not None

    @property
    def turned(self) -> Moment | None:
        """Since when the user is in, or out; ``None``: since before ``kept_since``."""
        turned = self.biography.turned
        return None if turned is None else self.moments[turned]

    @property
    def kept_since(self) -> Moment:
        return self.moments[self.biography.kept[0]]


class Finder:
    """Looks users up in every audience that the store knows."""

    def __init__(self, app: App) -> None:
        from audience_sync.store import overview

        self._app = app
        states = overview.audiences(app.database)
        self._states = [states[key] for key in sorted(states) if states[key].seq]
        self._kept = {state.key: app.lookups.kept(state.key) for state in self._states}
        self._resyncs = overview.resyncs(app.database)
        self._stopped = app.orders.stopped()
        # As a run would tell now: without what a person has paused, with what is leaving.
        self._told = app.admission().subscriptions(app.subscriptions, app.audiences)

    def ids(self, user: str) -> list[str]:
        """An id, and of what may be an e-mail everyone who has it, or had it."""
        found: set[str] = set()
        if "@" in user:
            for state in self._states:
                found |= self._app.lookups.with_email(state.key, user.strip())
        return [user, *sorted(found - {user})]

    def forgotten(self, user_ids: Sequence[str]) -> list[str]:
        """Who of them asked to be forgotten. Only who has an id can find that out."""
        from audience_sync.store.forgotten import forgotten

        asked = forgotten(self._app.database)
        if asked is None:
            return []
        return [user for user in user_ids if reference(asked.salt, user) in asked.references]

    def episodes(self, user_id: str) -> list[Episode]:
        """Those with something to do for a person come first."""
        found = [episode for state in self._states for episode in self._of(state, user_id)]
        return sorted(found, key=lambda e: not any(place.in_trouble for place in e.places))

    def _of(self, state: AudienceState, user_id: str) -> Iterator[Episode]:
        biography = self._biography(state.key, user_id)
        if not biography.changes and biography.oldest is None:
            return
        named = [biography.kept[0], *(seq for seq, _ in biography.changes)]
        yield Episode(
            audience=state.key,
            name=state.name,
            kind=state.kind,
            biography=biography,
            moments=self._app.histories.moments(state.key, named),
            places=tuple(self._places(state, biography)),
        )

    def _biography(self, key: AudienceKey, user_id: str) -> Biography:
        kept, lookups = self._kept[key], self._app.lookups
        oldest = None
        if kept and kept[0] != FIRST:
            oldest = lookups.state_at(key, kept[0], [user_id])[user_id]
        changes = lookups.history_of(key, user_id)
        return Biography(user_id=user_id, kept=kept, oldest=oldest, changes=changes)

    def _places(self, state: AudienceState, biography: Biography) -> Iterator[Place]:
        key, histories = state.key, self._app.histories
        refused = histories.refused(key, biography.user_id)
        deliveries: dict[str, list[Delivery]] = {
            name: [] for name in self._app.destinations if self._tell(key, name) is not None
        }
        for delivery in histories.deliveries(key, None):
            deliveries.setdefault(delivery.destination, []).append(delivery)
        for name, of_one in deliveries.items():
            tell, anew = self._tell(key, name), (key, name) in self._resyncs
            telling = what_was_told(biography, state.kind, of_one, refused, tell=tell, anew=anew)
            yield Place(
                name=name,
                configured=tell is not None,
                paused=self._paused(state, name),
                telling=telling,
            )

    def _tell(self, key: AudienceKey, destination: str) -> frozenset[Tell] | None:
        """``None``: nothing more is told there."""
        subscription = self._told.get(destination, {}).get(key)
        if subscription is None:
            subscription = self._app.subscriptions.get(destination, {}).get(key)
        return None if subscription is None else frozenset(subscription.tell)

    def _paused(self, state: AudienceState, destination: str) -> str | None:
        if state.paused_at is not None:
            return "the audience is paused by a person"
        if destination in self._stopped:
            return "the destination is paused by a person"
        pause = self._app.books.paused(destination)
        return None if pause is None else pause.reason
