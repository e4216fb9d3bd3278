"""Which members share requests to Crisp: a request sets the same keys to the same values for all.

Pure: who is told what goes in, requests come out. The sender and the forecast both ask it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

PEOPLE = 500
"""Of one request, at most."""

FEWEST = 5
"""Who have the same to be told, for one request to be worth while: it may take a second one to
look at what it did. Who needs two requests shares each with twice as many, and so on."""

Parts = tuple[bytes, ...]
"""Custom data, as one key and value each; equal ones are equal bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    """One request. ``members``: by their place in what was arranged."""

    parts: Parts
    members: Sequence[int]

    @property
    def data(self) -> dict[str, Any]:
        return {key: value for part in self.parts for key, value in orjson.loads(part).items()}


def parts_of(data: Mapping[str, Any]) -> Parts:
    """``true`` and ``1`` are not equal."""
    return tuple(orjson.dumps({key: data[key]}) for key in sorted(data))


def is_shared(parts: Parts, told: Mapping[bytes, int]) -> bool:
    """Whether so many others are told each of ``parts`` that it saves most of the requests.

    Args:
        told: how many are told each part, this member among them.
    """
    return sum(FEWEST / max(told.get(part, 0), 1) for part in parts) <= 1


def arranged(members: Sequence[Parts]) -> list[Shared]:
    """The requests that tell as many members as is worth while; the others are told alone.

    Everybody among ``members`` of a request is told all of their parts by these requests. By whole
    equal data, or by key and value, whichever takes fewer requests.
    """
    whole = _by_part([(b"\n".join(parts),) if parts else () for parts in members])
    whole = [Shared(parts=members[one.members[0]], members=one.members) for one in whole]
    return min(whole, _by_part(members), key=lambda found: _taken(found, members))


def _taken(found: Sequence[Shared], members: Sequence[Parts]) -> int:
    """With one read of those that say the same."""
    told = {member for one in found for member in one.members}
    return len(found) + len({one.parts for one in found}) + len(members) - len(told)


def _by_part(members: Sequence[Parts]) -> list[Shared]:
    inside = [place for place, parts in enumerate(members) if parts]
    while True:
        told = Counter(part for place in inside for part in members[place])
        stay = [place for place in inside if is_shared(members[place], told)]
        if len(stay) == len(inside):
            break
        inside = stay  # without those who left, others may be too few
    of_part: dict[bytes, list[int]] = {}
    for place in inside:
        for part in members[place]:
            of_part.setdefault(part, []).append(place)
    parts_of_same: dict[tuple[int, ...], list[bytes]] = {}
    for part, places in of_part.items():
        parts_of_same.setdefault(tuple(places), []).append(part)
    return [
        Shared(parts=tuple(parts), members=some)
        for places, parts in parts_of_same.items()
        for some in _evenly(places)
    ]


def _evenly(places: Sequence[int]) -> Iterator[Sequence[int]]:
    """At most ``PEOPLE`` at once, and no rest of a few."""
    times = math.ceil(len(places) / PEOPLE)
    each = math.ceil(len(places) / times)
    for start in range(0, len(places), each):
        yield places[start : start + each]


def counted(all_told: Iterable[Mapping[str, Any]]) -> Counter[bytes]:
    """How many are told each part."""
    return Counter(part for told in all_told for part in parts_of(told))


def most_shared(told: Mapping[bytes, int]) -> int:
    """Requests that these share at most, with as many reads.

    Args:
        told: see ``counted``.
    """
    return sum(2 * math.ceil(count / PEOPLE) for count in told.values() if count >= FEWEST)


def size_for(all_told: Sequence[Mapping[str, Any]], most: float) -> int:
    """How many consecutive ones to look at together, so that they share at most ``most`` requests,
    if that can be."""
    size = len(all_told)
    while size >= FEWEST:
        starts = range(0, len(all_told), size)
        if all(most_shared(counted(all_told[s : s + size])) <= most for s in starts):
            break
        size //= 2
    return max(size, 1)
