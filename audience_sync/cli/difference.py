"""What ``diff`` shows of one audience: a capture that was examined, or two kept snapshots."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from audience_sync.cli.counting import Counting
from audience_sync.cli.forecast import Forecast, forecasts
from audience_sync.cli.foreseen import changes_of
from audience_sync.domain.audience import Seq, Tell
from audience_sync.domain.change import Change
from audience_sync.domain.guard import Counts, percent
from audience_sync.errors import UsageError

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.pipeline.capture import Examined
    from audience_sync.pipeline.ports.reading import Refused
    from audience_sync.store.overview import AudienceState


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What the next run would do; ``held_for``: the guard's reasons to hold the capture.

    ``exits``, ``limit``: the share of members who leave, and how large it may be.
    """

    destinations: Sequence[Forecast]
    held_for: tuple[str, ...]
    exits: str
    limit: str
    refused: Refused
    plan: str | None


class Difference(Protocol):
    """``to_seq`` ``None``: not stored yet. ``definitions``: before and after, if they differ."""

    @property
    def audience(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def from_seq(self) -> int: ...
    @property
    def to_seq(self) -> int | None: ...
    @property
    def definitions(self) -> tuple[str, str] | None: ...
    @property
    def counts(self) -> Counts: ...

    def changes(self) -> Generator[Change]:
        """All of them, each call a new scan."""

    def outlook(self) -> Outlook | None:
        """``None``: nothing will become of it."""


def sample(difference: Difference, members: int) -> Iterator[Change]:
    """The first ``members`` who change."""
    if members:
        with closing(difference.changes()) as changes:
            yield from islice(changes, members)


class ExaminedDifference:
    """From the newest snapshot to what a capture would store."""

    def __init__(self, app: App, examined: Examined, counting: Counting) -> None:
        self._app = app
        self._counting = counting
        self._examined = examined
        self.audience = str(examined.audience.key)
        self.name = examined.audience.name
        self.from_seq = int(examined.from_seq)
        self.to_seq = None
        self.counts = examined.comparison.counts

    @property
    def definitions(self) -> tuple[str, str] | None:
        current, made = self._examined.current, self._examined.query_hash
        if current is None or current.query_hash == made:
            return None
        return current.query_hash, made

    def changes(self) -> Generator[Change]:
        return changes_of(self._examined)

    def outlook(self) -> Outlook:
        examined, counts = self._examined, self.counts
        limits = self._app.audiences[examined.audience.key].limits
        return Outlook(
            destinations=forecasts(self._app, examined, self._counting),
            held_for=examined.verdict.reasons,
            exits=percent(counts.exited / counts.previous) if counts.previous else "0 %",
            limit=percent(limits.max_exits),
            refused=examined.comparison.refused,
            plan=examined.plan_id if examined.changes_something else None,
        )


class KeptDifference:
    """From one kept snapshot to another, or back; 0 is nobody."""

    def __init__(self, app: App, state: AudienceState, from_seq: Seq, to_seq: Seq | None) -> None:
        """Raises UsageError when one of them is not kept."""
        if not state.seq:
            raise UsageError(f"no snapshot of {state.key} yet", hint="audience-sync sync makes one")
        to_seq = state.seq if to_seq is None else to_seq
        for seq in {from_seq, to_seq} - {0}:
            app.lookups.check_kept(state.key, seq)
        self._app = app
        self._key = state.key
        self.audience = str(state.key)
        self.name = state.name
        self.from_seq = from_seq
        self.to_seq = to_seq

    @property
    def definitions(self) -> tuple[str, str] | None:
        found = self._app.histories.moments(self._key, [self.from_seq, self.to_seq])
        hashes = [found[seq].definition for seq in (self.from_seq, self.to_seq) if seq in found]
        return (hashes[0], hashes[1]) if len(set(hashes)) > 1 else None

    @cached_property
    def counts(self) -> Counts:
        """Counted one by one: a user who came and went in between is no change."""
        counted = dict.fromkeys(Tell, 0)
        for change in self.changes():
            counted[change.kind] += 1
        members = {size.seq: size.members for size in self._app.histories.sizes(self._key)}
        return Counts(
            previous=members.get(self.from_seq, 0),
            entered=counted[Tell.ENTERED],
            exited=counted[Tell.EXITED],
            updated=counted[Tell.UPDATED],
            members=members.get(self.to_seq, 0),
        )

    def changes(self) -> Generator[Change]:
        backwards = self.to_seq < self.from_seq
        older, newer = sorted((self.from_seq, self.to_seq))
        for change in self._app.spans.net(self._key, older, newer):
            # A row that was stored anew for its columns only is no difference to anybody.
            if change.before != change.after:
                yield change.inverse() if backwards else change

    def outlook(self) -> None:
        return None
