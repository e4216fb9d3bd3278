"""In which order the spans of a lane are walked, and which of them together.

Spans are given as what is left of each, in the unit of the destination's rate, oldest first;
and named by their place in that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

TIMES = 10
"""So much more than all smaller ones together is left of a span that is walked apart from them.
It is also how little walking it apart may cost: at most one request in so many is one more."""


def one_by_one(left: Sequence[int]) -> list[list[int]]:
    """Smallest first; of equal ones the oldest."""
    return [[place] for place in _smallest_first(left)]


def in_bundles(left: Sequence[int], is_long: Callable[[int], bool]) -> list[list[int]]:
    """Each with the smaller ones, unless they would wait for it.

    Who is walked together with a large span is done when that one is; who changed in several
    audiences takes one request only together.

    Args:
        is_long: whether so much, from now on, is more than anybody should wait for.
    """
    bundles: list[list[int]] = []
    smaller = 0
    for place in _smallest_first(left):
        apart = left[place] > TIMES * smaller and is_long(smaller + left[place])
        if apart or not bundles:
            bundles.append([])
        bundles[-1].append(place)
        smaller += left[place]
    return bundles


def _smallest_first(left: Sequence[int]) -> list[int]:
    return sorted(range(len(left)), key=left.__getitem__)
