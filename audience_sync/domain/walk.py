"""Which members a span walks: those whose change is told, and those who are told again.

All iterables are sorted by ``user_id``, each user once. Those who are told again were rejected or
skipped by an earlier span and *stand*: their row changed, or a person asked for it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice
from operator import attrgetter, itemgetter

from audience_sync.domain.audience import Row, Tell
from audience_sync.domain.change import Change

Told = Callable[[Change], bool]
BY_USER = attrgetter("user_id")

AT_A_TIME = 1_000
"""Members whose states are asked for together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A member that was rejected or skipped and not handled since; ``retry``: a person asked."""

    user_id: str
    retry: bool


def survey(
    net: Iterable[Change],
    standing: Iterable[Standing],
    told: Told,
    again: Callable[[str], object] = lambda _user_id: None,
) -> int:
    """How many ``walk`` yields when those who stand are told again: if they changed, or retry.

    Args:
        again: called with each of those, in their order.
    """
    total = 0
    for user_id, stands in _walked(net, standing, told):
        total += 1
        if stands:
            again(user_id)
    return total


def _walked(
    net: Iterable[Change], standing: Iterable[Standing], told: Told
) -> Iterator[tuple[str, bool]]:
    """Who is walked, and whether as one who stands."""
    merged: Iterator[Change | Standing] = heapq.merge(net, standing, key=BY_USER)
    for user_id, group in groupby(merged, key=BY_USER):
        first, *rest = group
        if rest or (isinstance(first, Standing) and first.retry):
            yield user_id, True
        elif isinstance(first, Change) and told(first):
            yield user_id, False


def walk(net: Iterable[Change], again: Iterable[Change], told: Told) -> Iterator[Change]:
    """The changes to tell.

    Args:
        again: the state of everyone who is told again, as if they had entered or exited.
    """
    again = iter(again)
    state = next(again, None)
    if state is None:
        yield from filter(told, net)
        return
    changes = ((change, False) for change in net)
    states = ((change, True) for change in chain([state], again))
    both = heapq.merge(changes, states, key=lambda one: one[0].user_id)
    for _, group in groupby(both, key=lambda one: one[0].user_id):
        (change, is_state), *rest = group
        if rest and change.kind is Tell.UPDATED:
            # One whose entering was refused has yet to enter there, whatever changed since.
            yield rest[0][0]
        elif rest or is_state or told(change):
            yield change


def to_come(
    net: Iterable[Change],
    standing: Iterable[Standing],
    told: Told,
    unchanged: Callable[[Sequence[str]], Mapping[str, Change]],
) -> Iterator[Change]:
    """What ``walk`` will yield of a span that is yet to be opened.

    Args:
        unchanged: the states of those who stand, and whose rows are as they were; asked for some
            at a time.
    """
    found = _to_come(net, standing, told)
    while some := list(islice(found, AT_A_TIME)):
        stand = [one.user_id for one in some if isinstance(one, Standing)]
        states = unchanged(stand) if stand else {}
        for one in some:
            yield states[one.user_id] if isinstance(one, Standing) else one


def _to_come(
    net: Iterable[Change], standing: Iterable[Standing], told: Told
) -> Iterator[Change | Standing]:
    merged: Iterator[Change | Standing] = heapq.merge(net, standing, key=BY_USER)
    for user_id, group in groupby(merged, key=BY_USER):
        first, *rest = group
        if isinstance(first, Standing):
            if first.retry:
                yield first
        elif rest and first.kind is Tell.UPDATED:
            yield as_state(user_id, first.after)
        elif rest or told(first):
            yield first


def as_state(user_id: str, row: Row | None) -> Change:
    """The state of a user, as a change from the opposite."""
    if row is None:
        return Change(user_id=user_id, before={}, after=None)
    return Change(user_id=user_id, before=None, after=row)


def first_of_each(sets: Iterable[Iterable[Change]]) -> Iterator[Change]:
    """All users of ``sets``, each once: the change of the first set that has one."""
    for _, found in groupby(heapq.merge(*sets, key=BY_USER), key=BY_USER):
        yield next(found)


def as_told(
    members: Iterable[Change], told: Sequence[tuple[str | None, Iterable[Change]]]
) -> Iterator[Change]:
    """All who are told anew: members as entered, or unchanged where the destination knows them,
    and as exited whoever it may take for one.

    What an abandoned span had in flight beyond its position is not known, so of those who have left
    its position does not matter: nobody is hurt by ``false`` who was never told ``true``.

    Args:
        members: all of them, as entered.
        told: of each time it was told, oldest first, up to whom (``None``: everybody), and the
            changes since.
    """
    users: list[Iterator[tuple[str, int, Change]]] = [_numbered(-1, members)]
    users += [_numbered(number, changes) for number, (_, changes) in enumerate(told)]
    for user_id, group in groupby(heapq.merge(*users, key=itemgetter(0)), key=itemgetter(0)):
        found = {number: change for _, number, change in group}
        if -1 not in found:
            yield found[min(found)]
            continue
        heard = [n for n, (up_to, _) in enumerate(told) if up_to is None or user_id <= up_to]
        since = found.get(heard[-1]) if heard else None
        is_new = not heard or (since is not None and since.before is None)
        member = found[-1]
        yield member if is_new else replace(member, before=member.after)


def is_told_anew(tell: Collection[Tell]) -> Told:
    """Whether a change is told by a walk of everybody: also of those who stayed as they were."""
    whom = {change for change in (Tell.ENTERED, Tell.EXITED) if change in tell}
    return lambda change: (Tell.EXITED if change.after is None else Tell.ENTERED) in whom


def _numbered(number: int, changes: Iterable[Change]) -> Iterator[tuple[str, int, Change]]:
    return ((change.user_id, number, change) for change in changes)
