"""Who may be captured and told: what the configuration wants, and what people have ordered."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from audience_sync.domain.audience import LEAVING, AudienceKey, Known, State
from audience_sync.domain.guard import Limits
from audience_sync.errors import ConfigError, Held
from audience_sync.pipeline.captures import CaptureOutcome, Configured
from audience_sync.pipeline.subscription import Subscription

Subscriptions = Mapping[str, Mapping[AudienceKey, Subscription]]
"""For each destination, how its audiences are told."""

WRITTEN = 'state = "{}" in the configuration'


@dataclass(frozen=True, kw_only=True, slots=True)
class Admission:
    """Decided anew for each run, from what the store knows then."""

    known: Mapping[AudienceKey, Known]
    configured: Collection[AudienceKey]

    def refusal(self, audience: Configured) -> CaptureOutcome | None:
        """Why an audience is not captured, or ``None``.

        ``outcome``: ``paused``, ``retired``, ``renamed?`` or, where its key was another's,
        ``failed``; with an ``error``, or ``why`` and what ``ends`` it.
        """
        key = audience.audience.key
        known = self.known.get(key)
        if known and known.retired_at:
            return self._retired(audience, known)
        if audience.state is State.RETIRED:
            why, ends = f"by {WRITTEN.format('retired')}", _taken_out("retired")
            return CaptureOutcome(audience=key, outcome="retired", why=why, ends=ends)
        if audience.state is State.PAUSED or (known and known.paused_at):
            return _paused(audience, by_person=bool(known and known.paused_at))
        vanished = self.vanished()
        is_new = known is None or not known.seq
        if vanished and is_new and not audience.explicit_key:
            return CaptureOutcome(audience=key, outcome="renamed?", error=_renamed(key, vanished))
        return None

    def to_retire(self, audiences: Iterable[Configured]) -> list[Configured]:
        """Audiences that the configuration retires, and that are not closed yet."""
        return [
            configured
            for configured in audiences
            if configured.state is State.RETIRED
            and (known := self.known.get(configured.audience.key))
            and known.seq
            and not known.retired_at
        ]

    def vanished(self) -> list[AudienceKey]:
        """Audiences that were captured and not retired, and are no longer configured."""
        return sorted(
            known.key
            for known in self.known.values()
            if known.seq and not known.retired_at and known.key not in self.configured
        )

    def subscriptions(
        self, wanted: Subscriptions, audiences: Mapping[AudienceKey, Configured]
    ) -> dict[str, dict[AudienceKey, Subscription]]:
        """``wanted`` without those who are paused, and with those who are leaving."""
        return {
            name: {key: how for key, how in of.items() if self.refusal(audiences[key]) is None}
            | self._leaving(name)
            for name, of in wanted.items()
        }

    def _leaving(self, destination: str) -> dict[AudienceKey, Subscription]:
        """Retired audiences of which nobody is a member any more: all are told so.

        One that was retired without telling anybody is paused as well.
        """
        return {
            known.key: Subscription(tell=LEAVING, limits=Limits())
            for known in self.known.values()
            if known.retired_at and not known.paused_at and destination in known.told_to
        }

    def _retired(self, audience: Configured, known: Known) -> CaptureOutcome:
        key, name = known.key, audience.audience.name
        error = None
        if name != known.name and audience.state is not State.RETIRED:
            error = ConfigError(
                [f"{name}: the trait key {key} was {known.name}'s, which is retired: write another"]
            )
        if error:
            return CaptureOutcome(audience=key, outcome="failed", error=error)
        ends = "take it out of the configuration"
        return CaptureOutcome(audience=key, outcome="retired", why="for good", ends=ends)


def _paused(audience: Configured, *, by_person: bool) -> CaptureOutcome:
    """People and the configuration may both want it so, and each ends only its own."""
    key, by_file = audience.audience.key, audience.state is State.PAUSED
    who = ["a person"] if by_person else []
    who += [WRITTEN.format("paused")] if by_file else []
    ends = [f"audience-sync resume {key}"] if by_person else []
    ends += [_taken_out("paused")] if by_file else []
    why = f"by {' and '.join(who)}"
    return CaptureOutcome(audience=key, outcome="paused", why=why, ends=", ".join(ends))


def _taken_out(state: str) -> str:
    return f'take state = "{state}" out of the configuration'


def _renamed(key: AudienceKey, vanished: Collection[AudienceKey]) -> Held:
    gone = ", ".join(vanished)
    return Held(
        f"new, and {gone} is no longer configured: renamed?",
        hint=f'if so write key = "{min(vanished)}"; if not, key = "{key}", '
        f"or retire the other: audience-sync retire {min(vanished)}",
    )
