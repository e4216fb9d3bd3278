"""Requests, counted for what one span tells, and for all spans that are walked together.

What a span tells can be read once, while its capture is open. So it is put aside, on disk where it
is much, and read again when all audiences were looked at.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import IO, TYPE_CHECKING, NamedTuple

from audience_sync.cli.foreseen import Walked
from audience_sync.cli.takes import Takes
from audience_sync.domain.audience import Tell
from audience_sync.domain.change import Change
from audience_sync.domain.quota import Lane
from audience_sync.domain.requests import Requests

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.pipeline.ports.sending import SpanContext, Told

IN_MEMORY = 4 * 1024 * 1024
"""Bytes of one span that are put aside without a file."""


class Step(NamedTuple):
    """``is_later``: what waits until another delivery of its audience has ended."""

    lane: Lane
    is_later: bool


IN_ORDER = (
    Step(Lane.INCREMENTAL, is_later=False),
    Step(Lane.INITIAL, is_later=False),
    Step(Lane.INCREMENTAL, is_later=True),
)
"""Of a run of ``sync``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """``calls``: one or two of each member, however many go in one request."""

    calls: int
    requests: Requests
    bulk: bool
    """Whether members are told in bulk, as it is configured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InAll:
    """What one step takes of a destination that is told of several audiences, after the steps
    before it."""

    destination: str
    step: Step
    audiences: int
    requests: Requests
    bulk: bool


@dataclass(kw_only=True, slots=True)
class _Aside:
    """What one span tells. ``changes``: how many."""

    walked: Walked
    file: IO[bytes]
    changes: int = 0


class Counting:
    """For one look at several audiences. Close it: it may have files."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._aside: dict[tuple[str, Step], list[_Aside]] = {}
        self._files = ExitStack()

    def close(self) -> None:
        self._files.close()

    def one(self, name: str, walked: Walked, *, put_aside: bool, is_later: bool = False) -> Counted:
        """What ``walked`` takes by itself, at a destination that counts requests.

        Args:
            is_later: see ``Step``.
        """
        count = self._app.destinations[name].count()
        assert count is not None
        changes = iter(walked.changes)
        if put_aside:
            made = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  # closed with us
            aside = _Aside(walked=walked, file=self._files.enter_context(made))
            self._aside.setdefault((name, Step(walked.lane, is_later)), []).append(aside)
            changes = _copied(changes, aside)
        destination, context, calls = self._app.destinations[name], self._context(walked), 0

        def told() -> Iterator[Sequence[Told]]:
            nonlocal calls
            for change in changes:
                calls += destination.calls_per_change(change.kind, walked.kind)
                yield [_told(change, context)]

        requests = count.of(told())
        return Counted(calls=calls, requests=requests, bulk=count.bulk)

    def in_all(self) -> Iterator[InAll]:
        """Where there are several: each step as it is after the one before, which makes people
        known."""
        for name in dict.fromkeys(name for name, _ in self._aside):
            steps = [(step, told) for step in IN_ORDER if (told := self._told(name, step))]
            if len({one.walked.audience for _, told in steps for one in told}) > 1:
                yield from self._step_by_step(name, steps)

    def _told(self, name: str, step: Step) -> list[_Aside]:
        return [one for one in self._aside.get((name, step), ()) if one.changes]

    def _step_by_step(
        self, name: str, steps: Sequence[tuple[Step, Sequence[_Aside]]]
    ) -> Iterator[InAll]:
        before = Requests()
        for number, (step, told) in enumerate(steps, 1):
            count = self._app.destinations[name].count()
            assert count is not None
            walks = [self._in_turns(name, step.lane, told) for step, told in steps[:number]]
            requests = count.of(*chain.from_iterable(walks))
            yield InAll(
                destination=name,
                step=step,
                audiences=len(told),
                requests=requests - before,
                bulk=count.bulk,
            )
            before = requests

    def _in_turns(
        self, name: str, lane: Lane, told: Sequence[_Aside]
    ) -> Iterator[Iterator[Sequence[Told]]]:
        """The members of those who are walked together, one group after another."""
        from audience_sync.pipeline.amount_left import most_calls
        from audience_sync.pipeline.bundle import merged

        to, walks = self._app.destinations[name], [one.walked for one in told]
        most = [most_calls(to, walked.tell, walked.kind) for walked in walks]
        left = [one.changes * each for one, each in zip(told, most, strict=True)]
        for group in Takes(self._app, name, lane).turns(left):
            changes = [_read(told[place].file) for place in sorted(group)]
            contexts = [self._context(walks[place]) for place in sorted(group)]
            yield (member.told for member in merged(changes, contexts))

    def _context(self, walked: Walked) -> SpanContext:
        from audience_sync.pipeline.ports.sending import SpanContext

        return SpanContext(
            audience=walked.audience,
            kind=walked.kind,
            span_number=0,
            timestamp=walked.cycle_time,
            installation=self._app.installation.key,
            members_left=walked.members_left,
            is_anew=walked.is_anew,
        )


def _told(change: Change, context: SpanContext) -> Told:
    from audience_sync.pipeline.ports.sending import Told

    return Told(change=change, context=context)


def _copied(changes: Iterator[Change], aside: _Aside) -> Iterator[Change]:
    import orjson

    for change in changes:
        aside.file.write(orjson.dumps([change.user_id, change.before, change.after]) + b"\n")
        aside.changes += 1
        yield change


def _read(file: IO[bytes]) -> Iterator[Change]:
    import orjson

    file.seek(0)
    while line := file.readline():
        user_id, before, after = orjson.loads(line)
        yield Change(user_id=user_id, before=before, after=after)


def first_delivery_time(app: App, name: str, walked: Walked) -> float:
    """Seconds that the initial lane of a destination takes for a span, at least, from now on."""
    takes, to = Takes(app, name, Lane.INITIAL), app.destinations[name]
    if to.count() is None:
        each = to.calls_per_change(Tell.ENTERED, walked.kind)
        return takes.seconds(walked.members_left * each)
    counted = Counting(app).one(name, walked, put_aside=False)
    requests = counted.requests
    return takes.seconds((requests.with_bulk if counted.bulk else requests.one_by_one).least)
