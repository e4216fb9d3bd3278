"""Which members a span walks: those whose change is told, and those who are told again.

All iterables are sorted by ``user_id``, each user once. Those who are told again were rejected or
skipped by an earlier span and *stand*: their row changed, or a person asked for it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from operator import attrgetter, itemgetter

from audience_sync.domain.audience import Row, Tell
from audience_sync.domain.change import Change

Told = Callable[[Change], bool]
BY_USER = attrgetter("user_id")


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A member that was rejected or skipped and not handled since; ``retry``: a person asked."""

    user_id: str
    retry: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What a span will walk: members in all, and those of them who are told again."""

    total: int
    again: Sequence[str]


def survey(net: Iterable[Change], standing: Iterable[Standing], told: Told) -> Survey:
    """Count what ``walk`` yields when those who stand are told again: if they changed, or retry."""
    total, again = 0, list[str]()
    merged: Iterator[Change | Standing] = heapq.merge(net, standing, key=BY_USER)
    for user_id, group in groupby(merged, key=BY_USER):
        first, *rest = group
        if rest or (isinstance(first, Standing) and first.retry):
            again.append(user_id)
            total += 1
        elif isinstance(first, Change) and told(first):
            total += 1
    return Survey(total=total, again=again)


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
    """Members as they are told anew: as entered, or unchanged where the destination knows them.

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
            continue
        heard = [n for n, (up_to, _) in enumerate(told) if up_to is None or user_id <= up_to]
        since = found.get(heard[-1]) if heard else None
        is_new = not heard or (since is not None and since.before is None)
        member = found[-1]
        yield member if is_new else replace(member, before=member.after)


def _numbered(number: int, changes: Iterable[Change]) -> Iterator[tuple[str, int, Change]]:
    return ((change.user_id, number, change) for change in changes)
