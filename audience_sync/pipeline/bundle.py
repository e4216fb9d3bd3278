"""Several spans walked together: what they tell of one member comes together, and is split again.

A destination that takes many traits in one request is asked once for a member who changed in
five audiences. Each span keeps its own position and books.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from audience_sync.domain.change import Change
from audience_sync.domain.span import Tally
from audience_sync.pipeline.ports.sending import SpanContext, Told

Spans = tuple[int, ...]
"""Which of the spans that are walked together, by their place in that order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One user, and what each of ``spans`` tells of them."""

    user_id: str
    told: Sequence[Told]
    spans: Spans


def merged(
    changes: Sequence[Iterable[Change]], contexts: Sequence[SpanContext]
) -> Iterator[Member]:
    """The members of all spans, each once, in ``user_id`` order.

    Args:
        changes: of each span, in ``user_id`` order: that of code points, which is that of UTF-8.
        contexts: of each span.
    """
    if len(changes) == 1:
        (context,) = contexts
        for change in changes[0]:
            told = (Told(change=change, context=context),)
            yield Member(user_id=change.user_id, told=told, spans=(0,))
        return
    streams = [_numbered(number, each) for number, each in enumerate(changes)]
    in_order = heapq.merge(*streams, key=itemgetter(0))
    for user_id, of_user in groupby(in_order, key=itemgetter(0)):
        group = list(of_user)
        yield Member(
            user_id=user_id,
            told=[Told(change=change, context=contexts[number]) for _, number, change in group],
            spans=tuple(number for _, number, _ in group),
        )


def _numbered(number: int, changes: Iterable[Change]) -> Iterator[tuple[str, int, Change]]:
    for change in changes:
        yield change.user_id, number, change


def split(tally: Tally, spans: Mapping[str, Spans]) -> dict[int, Tally]:
    """What became of one batch, for each span.

    What is told of a member in several audiences would take a request for each: all but the
    first are saved.

    Args:
        spans: of each member of the batch, in ``user_id`` order, also beyond the tally's last.
    """
    refused = {refusal.user_id: refusal for refusal in tally.rejected}
    skipped = {refusal.user_id: refusal for refusal in tally.skipped}
    shares: dict[int, Tally] = {}
    for user_id, numbers in spans.items():
        if user_id > tally.last_user_id:
            break
        for number in numbers:
            share = shares.setdefault(number, Tally(last_user_id=user_id))
            share.last_user_id = user_id
            if user_id in refused:
                share.rejected.append(refused[user_id])
            elif user_id in skipped:
                share.skipped.append(skipped[user_id])
            else:
                share.accepted += 1
                share.saved += number != numbers[0]
    if shares:
        first = next(iter(shares.values()))
        first.contacts = tally.contacts
        first.saved += tally.saved
    return shares
