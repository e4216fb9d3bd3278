"""About how much of rate and quota is still needed for spans that are walked together."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from audience_sync.domain.audience import Kind, Tell
from audience_sync.domain.span import Span
from audience_sync.errors import ChunkDamaged
from audience_sync.pipeline.bundle import Member, merged
from audience_sync.pipeline.ports.delivering import Spans
from audience_sync.pipeline.ports.destination import Count, Destination
from audience_sync.pipeline.ports.sending import SpanContext, Told

LOOKED_AT = 4_000
"""Changes that are counted one by one; of more, the others are taken to be like them."""

PLACES = 8
"""At which they are looked at, all along the walk: the order of ``user_id`` may mean something."""


def amount_left(to: Destination, spans: Spans, walked: Sequence[Span]) -> int:
    """For each of ``walked`` it is the same: they are done together.

    A member of several takes what telling them together takes. Of whom it is not known whether the
    destination has them, it has not.

    Raises:
        StoreFailed: the store cannot be read.
    """
    count = to.count()
    if count is not None:
        with suppress(ChunkDamaged):
            return _counted(count, spans, walked)
    return sum(calls_left(to, span) for span in walked)


def calls_left(to: Destination, span: Span) -> int:
    """At most so many."""
    return span.books.remaining * most_calls(to, span.tell, span.audience_kind)


def most_calls(to: Destination, tell: Collection[Tell], kind: Kind) -> int:
    """Of one member."""
    return max((to.calls_per_change(word, kind) for word in tell), default=1)


def _counted(count: Count, spans: Spans, walked: Sequence[Span]) -> int:
    changes = 0

    def told() -> Iterator[Sequence[Told]]:
        nonlocal changes
        for member in _some(spans, walked):
            changes += len(member.told)
            yield member.told

    requests = count.of(told())
    needed = requests.with_bulk if count.bulk else requests.one_by_one
    left = sum(span.books.remaining for span in walked)
    return math.ceil(needed.least * left / changes) if changes else 0


def _some(spans: Spans, walked: Sequence[Span]) -> Iterator[Member]:
    """All who are left, or some of them at places that are about equally far from each other."""
    if sum(span.books.remaining for span in walked) <= LOOKED_AT:
        yield from _from(spans, walked)
        return
    found = sorted({place for span in walked for place in spans.milestones(span, PLACES)})
    places = found[:: math.ceil(len(found) / PLACES)] if found else []
    for place, beyond in zip(["", *places], [*places, None], strict=True):
        here = [replace(s, position=max(s.position or "", place) or None) for s in walked]
        changes = LOOKED_AT // (len(places) + 1)
        for member in _from(spans, here):
            if changes <= 0 or (beyond is not None and member.user_id > beyond):
                break
            changes -= len(member.told)
            yield member


def _from(spans: Spans, walked: Sequence[Span]) -> Iterator[Member]:
    return merged([spans.changes(span) for span in walked], [_context(span) for span in walked])


def _context(span: Span) -> SpanContext:
    return SpanContext(
        audience=span.audience,
        kind=span.audience_kind,
        span_number=span.number,
        timestamp=span.captured_at,
        installation="",
    )
