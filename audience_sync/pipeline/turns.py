"""In which turns the open spans of a lane are walked, and which of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from audience_sync.domain.quota import Lane
from audience_sync.domain.turns import in_bundles, one_by_one
from audience_sync.pipeline.lane_time import lane_time

if TYPE_CHECKING:  # it needs pyarrow, which a command line starts without
    from audience_sync.domain.span import Span
    from audience_sync.pipeline.ports.destination import Destination

LONG = timedelta(minutes=10)
"""More than that a small span does not wait for a large one, to save requests."""


def in_turns(
    to: Destination, lane: Lane, spans: Sequence[Span], *, now: datetime, used: Mapping[Lane, int]
) -> list[list[Span]]:
    """Those that are walked together, one group after another.

    Args:
        spans: oldest first.
        used: of today's quota.
    """
    from audience_sync.pipeline.amount_left import calls_left

    left = [calls_left(to, span) for span in spans]
    turns = turns_of(to, lane, left, now=now, used=used)
    return [[spans[place] for place in sorted(places)] for places in turns]


def turns_of(
    to: Destination, lane: Lane, left: Sequence[int], *, now: datetime, used: Mapping[Lane, int]
) -> list[list[int]]:
    """As places in ``left``: the calls that each span may still take, oldest first.

    How many requests they take depends on who they are told of; it is taken to be one each.
    """
    if not to.bundles:
        return one_by_one(left)
    return in_bundles(left, lambda amount: lane_time(to, lane, amount, now=now, used=used) > LONG)
