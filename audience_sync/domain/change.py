"""Changes of a membership and their algebra.

A change set maps snapshot ``a`` to snapshot ``b``. ``compose`` joins a→b with b→c to a→c, and
``inverse`` reads b→a, so one stored base reaches every kept snapshot in both directions.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from audience_sync.domain.audience import VALUE, Kind, Row, Tell, Value


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One user's change: no ``before`` means entered, no ``after`` exited, both updated."""

    user_id: str
    before: Row | None
    after: Row | None

    @property
    def kind(self) -> Tell:
        if self.before is None:
            return Tell.ENTERED
        return Tell.EXITED if self.after is None else Tell.UPDATED

    def inverse(self) -> Change:
        return Change(user_id=self.user_id, before=self.after, after=self.before)


def compose(first: Change, then: Change) -> Change | None:
    """a→c from a→b and b→c for one user; ``None`` when nothing is left of it."""
    if first.before == then.after:
        return None
    return Change(user_id=first.user_id, before=first.before, after=then.after)


def compose_sets(sets: Iterable[Iterable[Change]]) -> Iterator[Change]:
    """The net change of consecutive change sets, each sorted by ``user_id``; sorted too.

    ``heapq.merge`` is stable, so changes of one user arrive in the order of their sets. Code-point
    order of ``str`` is the byte order of UTF-8, in which chunks are stored.
    """
    merged = heapq.merge(*sets, key=attrgetter("user_id"))
    for _, of_one_user in groupby(merged, key=attrgetter("user_id")):
        net: Change | None = None
        for change in of_one_user:
            net = change if net is None else compose(net, change)
        if net is not None:
            yield net


def is_told(change: Change, tell: Collection[Tell], kind: Kind) -> bool:
    """Whether a destination hears of ``change`` in an audience or computed trait (``kind``).

    An update of an audience is told only where a column that both rows have differs: a column
    added to or dropped from the query, or read with another type, tells nobody. An update of a
    computed trait is told only where its value differs, as Segment does.
    """
    if change.kind not in tell:
        return False
    before, after = change.before, change.after
    if before is None or after is None:
        return True
    columns = before.keys() & after.keys()
    if kind is Kind.COMPUTED_TRAIT:
        columns &= {VALUE}
    return any(_text(before[c]) != _text(after[c]) for c in columns)


def _text(value: Value) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return None if value is None else str(value)
