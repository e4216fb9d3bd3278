"""What a destination was told of one user, worked out from what is kept.

No row is written per member told. So this follows from the user's changes, from where spans begin,
end and stand, and from the members that were refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from audience_sync.domain.audience import VALUE, Kind, Seq, Tell, Value
from audience_sync.domain.biography import Biography
from audience_sync.domain.change import is_told
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Books, SpanKind, SpanState


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """One span with its times; ``position``: the last handled user."""

    id: int
    destination: str
    number: int
    lane: Lane
    kind: SpanKind
    state: SpanState
    held_for: str | None
    tell: frozenset[Tell]
    from_seq: Seq
    to_seq: Seq
    position: str | None
    books: Books
    opened_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """The user was ``rejected`` or ``skipped`` in span ``span_id``.

    ``again_in``: later spans that took the user up again. ``retry``: a person asked for it.
    """

    span_id: int
    outcome: str
    reason: str
    at: datetime
    again_in: frozenset[int]
    retry: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """A value that was accepted, ``after`` one time and not later than ``by``.

    ``after`` ``None``: the span began before what is kept. ``by`` ``None``: its span is open yet.
    """

    value: Value
    after: datetime | None
    by: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Unsaid:
    """``state``: ``waits``, ``open``, ``held``, ``rejected`` or ``skipped``.

    ``retry``: the next span tells it again, as a person asked for it.
    """

    state: str
    value: Value
    reason: str | None = None
    at: datetime | None = None
    delivery: Delivery | None = None
    retry: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Telling:
    """``said``: the last that was accepted. ``unsaid``: what came after, newest first."""

    said: Said | None
    unsaid: tuple[Unsaid, ...]


def what_was_told(
    biography: Biography,
    kind: Kind,
    deliveries: Sequence[Delivery],
    refused: Sequence[Refused],
    *,
    tell: Collection[Tell] | None,
    anew: bool = False,
) -> Telling:
    """What one destination was told of one user.

    Args:
        deliveries: of the audience to the destination, newest first.
        refused: of the user, newest first; in other deliveries as well.
        tell: as it is configured now; ``None``: nothing more is told there.
        anew: a resync is ordered and has not begun.
    """
    unsaid = [] if tell is None else list(_waits(biography, kind, deliveries, tell, anew))
    for number, delivery in enumerate(deliveries):
        refusal = next((r for r in refused if r.span_id == delivery.id), None)
        older = deliveries[number + 1 :]
        has = refusal is not None or _has(delivery, older, biography, kind, refused)
        value = _value(biography, kind, delivery.to_seq)
        if has is None:
            refusal = next((r for r in refused if r.span_id in {d.id for d in older}), None)
            said = None if refusal else _said_before(biography, delivery, value)
            unsaid += [_refusal(refusal, value)] if refusal else []
            return Telling(said=said, unsaid=tuple(unsaid))
        if not has:
            continue
        if refusal is not None:
            unsaid.append(_refusal(refusal, value))
        elif _passed(delivery, biography.user_id):
            said = Said(value=value, after=delivery.opened_at, by=delivery.ended_at)
            return Telling(said=said, unsaid=tuple(unsaid))
        elif delivery.state in (SpanState.OPEN, SpanState.HELD):
            held_for, state = delivery.held_for, str(delivery.state)
            unsaid.append(Unsaid(state=state, value=value, reason=held_for, delivery=delivery))
    return Telling(said=None, unsaid=tuple(unsaid))


def _refusal(refusal: Refused, value: Value) -> Unsaid:
    return Unsaid(
        state=refusal.outcome,
        value=value,
        reason=refusal.reason,
        at=refusal.at,
        retry=refusal.retry and not refusal.again_in,
    )


def _waits(
    biography: Biography,
    kind: Kind,
    deliveries: Sequence[Delivery],
    tell: Collection[Tell],
    anew: bool,
) -> Iterator[Unsaid]:
    """What the next span will tell."""
    ends = (d.to_seq for d in deliveries if d.state is not SpanState.ABANDONED)
    froms = _told_seqs(deliveries) if anew else [next(ends, Seq(0))]
    if biography.kept and _is_told(biography, kind, froms, biography.kept[-1], tell, anew):
        yield Unsaid(state="waits", value=_value(biography, kind, biography.kept[-1]))


def _has(
    delivery: Delivery,
    older: Sequence[Delivery],
    biography: Biography,
    kind: Kind,
    refused: Collection[Refused],
) -> bool | None:
    """Whether the user is one of those whom the span tells; ``None``: no longer known."""
    if not biography.knows(delivery.to_seq):
        return None
    if any(delivery.id in refusal.again_in for refusal in refused):
        return True
    anew = delivery.kind is SpanKind.RESYNC
    froms = _told_seqs(older) if anew else [delivery.from_seq]
    return _is_told(biography, kind, froms, delivery.to_seq, delivery.tell, anew)


def _is_told(
    biography: Biography,
    kind: Kind,
    froms: Sequence[Seq],
    to_seq: Seq,
    tell: Collection[Tell],
    anew: bool,
) -> bool | None:
    """Whether a span tells the user; ``None``: where it starts is no longer known.

    Args:
        froms: snapshots of which the destination was told.
        anew: a resync: every member is told, and who was one in any of ``froms``.
    """
    if anew and biography.at(to_seq) is not None:
        return Tell.ENTERED in tell
    if not all(biography.knows(seq) for seq in froms):
        return None
    changes = (biography.change(seq, to_seq) for seq in froms)
    return any(change is not None and is_told(change, tell, kind) for change in changes)


def _told_seqs(older: Sequence[Delivery]) -> list[Seq]:
    """The last snapshot that was told whole, and those that were told in parts since."""
    whole = (i for i, delivery in enumerate(older) if delivery.state is SpanState.COMPLETED)
    since = older[: next(whole, len(older) - 1) + 1]
    done = [d for d in since if d.state is SpanState.COMPLETED or d.position is not None]
    return [delivery.to_seq for delivery in done]


def _passed(delivery: Delivery, user_id: str) -> bool:
    """Python compares text by code point, which is the order of the bytes of UTF-8."""
    if delivery.state is SpanState.COMPLETED:
        return True
    return delivery.position is not None and user_id <= delivery.position


def _said_before(biography: Biography, delivery: Delivery, value: Value) -> Said | None:
    """Of a member who is in for longer than is kept, this much is sure."""
    told = delivery.state is SpanState.COMPLETED and Tell.ENTERED in delivery.tell
    if told and biography.knows(delivery.to_seq) and biography.at(delivery.to_seq) is not None:
        return Said(value=value, after=None, by=delivery.ended_at)
    return None


def _value(biography: Biography, kind: Kind, seq: Seq) -> Value:
    """What the trait is at a snapshot; a computed trait is null for those who are not in it."""
    row = biography.at(seq)
    if kind is Kind.COMPUTED_TRAIT:
        return None if row is None else row.get(VALUE)
    return row is not None
