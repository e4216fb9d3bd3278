"""To say of what there is no span: what waits, and could not be read."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from audience_sync.domain.audience import Seq, Tell
from audience_sync.domain.span import Books, Span, SpanState
from audience_sync.pipeline.ports.delivering import Waiting


def unopened(waiting: Waiting, destination: str, *, tell: Collection[Tell], now: datetime) -> Span:
    """A span that is nowhere stored. How many it would tell is not known."""
    return Span(
        id=0,
        audience=waiting.audience,
        audience_kind=waiting.audience_kind,
        destination=destination,
        number=0,
        lane=waiting.lane,
        kind=waiting.kind,
        state=SpanState.ABANDONED,
        from_seq=waiting.told_seq or Seq(0),
        to_seq=waiting.to_seq,
        position=None,
        books=Books(total=0),
        captured_at=now,
        plan_id="",
        tell=frozenset(tell),
    )
