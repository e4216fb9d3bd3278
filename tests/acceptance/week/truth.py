"""Whether what was captured and told is what was true. Each check yields what is wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache

from tests.acceptance.week.configuration import LINES, SECOND
from tests.acceptance.week.evidence import Call, Chunks, Span, Stored
from tests.acceptance.week.run import Evidence
from tests.acceptance.week.world import Members, Planned, told

DONE = ("committed", "unchanged")


def snapshots_are_true(week: Evidence, stored: Stored, chunks: Chunks) -> Iterator[str]:
    """Every capture found exactly who was a member at its time."""
    for key, planned in week.audiences.items():
        members: Members = {}
        captures = [capture for capture in stored.captures if capture.key == key]
        made = [capture.snapshot for capture in captures if capture.snapshot is not None]
        for capture in captures:
            where = f"{key} captured for {capture.cycle_time:%H:%M:%S} ({capture.outcome})"
            if capture.outcome not in DONE:
                yield f"{where}: no capture was to fail"
                continue
            if capture.snapshot is not None:
                if capture.snapshot.seq == 1:
                    members = chunks.first(made)
                else:
                    yield from (
                        f"{where}: {fault}" for fault in chunks.apply(capture.snapshot, members)
                    )
                    if capture.snapshot.has_base and chunks.base(capture.snapshot) != members:
                        yield f"{where}: base and changes differ"
            truth = planned.members_at(capture.cycle_time)
            if members != truth:
                differ = sum(members.get(u) != truth.get(u) for u in members.keys() | truth.keys())
                yield f"{where}: {differ} members are not as they were then"


def every_change_was_told(week: Evidence, stored: Stored, calls: Sequence[Call]) -> Iterator[str]:
    """The calls of each span are exactly the way from its first snapshot to its last."""
    at = _memory(week)
    found: dict[tuple[str, str, str], list[Call]] = defaultdict(list)
    for call in calls:
        found[call.destination, call.key, call.timestamp].append(call)
    for span in stored.spans:
        planned = week.audiences[span.key]
        must = told(planned, at(span.key, span.from_time), at(span.key, span.to_time))
        of_span = found.pop((span.destination, span.key, span.timestamp), [])
        where = f"{span.key} to {span.destination} {span.from_seq}→{span.to_seq}"
        yield from (f"{where}: {fault}" for fault in _differences(planned, span, must, of_span))
    for name in found:
        yield f"calls of no span: {name}"


def _memory(week: Evidence):  # type: ignore[no-untyped-def]
    @cache
    def at(key: str, time: datetime | None) -> Members:
        return {} if time is None else week.audiences[key].members_at(time)

    return at


def _differences(
    planned: Planned, span: Span, must: dict[str, dict[str, object]], calls: Sequence[Call]
) -> Iterator[str]:
    books = span.books
    if (span.state, books["rejected"], books["skipped"]) != ("completed", 0, 0):
        yield f"is {span.state}, {books}"
    if not books["total"] == books["accepted"] == len(must):
        yield f"books {books}, but {len(must)} are to be told"
    identified = [call for call in calls if call.type == "identify"]
    said = {call.user_id: call.traits for call in identified}
    if said != must:
        missing, more = len(must.keys() - said.keys()), len(said.keys() - must.keys())
        others = sum(said[u] != must[u] for u in said.keys() & must.keys())
        yield f"{missing} were not told, {more} need not have been, {others} were told otherwise"
    if len({(call.id, call.user_id) for call in identified}) != len(said):
        yield "one change has two ids"
    tracked = {call.user_id for call in calls if call.type == "track"}
    events = (
        set(must) if planned.is_trait else {u for u in must if _is_event(planned, span, must[u])}
    )
    if tracked != (events if span.destination == SECOND else set()):
        yield f"{len(tracked)} events, but {len(events)} entered or left"


def _is_event(planned: Planned, span: Span, traits: dict[str, object]) -> bool:
    """The second destination is told of no audience that tells updates."""
    assert span.destination != SECOND or "updated" not in planned.tell
    return planned.key in traits


def the_last_word_is_true(week: Evidence, stored: Stored, calls: Sequence[Call]) -> Iterator[str]:
    """What was said last of everybody is how things stand, and nothing older came after newer."""
    last: dict[tuple[str, str], dict[str, Call]] = defaultdict(dict)
    for call in calls:
        if call.type == "identify":
            said = last[call.destination, call.key]
            before = said.get(call.user_id)
            if before is not None and before.timestamp > call.timestamp:
                yield f"{call.key} at {call.destination}: older after newer, {call.user_id}"
            said[call.user_id] = call
    for key, planned in week.audiences.items():
        now = planned.members_at(datetime.fromtimestamp(week.changed_until).astimezone())
        for destination in planned.destinations:
            said = last[destination, key]
            if stored.told.get((key, destination)) != stored.newest.get(key):
                yield f"{key} at {destination}: not everything is told"
            for user_id in said.keys() | now.keys():
                word = said[user_id].traits[key] if user_id in said else None
                row = now.get(user_id)
                truth = (row["value"] if row else None) if planned.is_trait else row is not None
                if word != truth and not (word is None and not truth):
                    yield f"{key} at {destination}: {user_id} was told {word}, is {truth}"


def one_body_for_one_id(calls: Sequence[Call]) -> Iterator[str]:
    bodies: dict[str, tuple[str, str]] = {}
    for call in calls:
        if bodies.setdefault(call.id, (call.destination, call.body)) != (
            call.destination,
            call.body,
        ):
            yield f"one id for two bodies: {call.id}"


def books_are_closed(week: Evidence, stored: Stored) -> Iterator[str]:
    if not week.all_told:
        yield "in the quiet time at the end not everybody was captured, or not all was told"
    for what, left in (
        ("staged snapshots", stored.staged),
        ("destinations paused", stored.paused),
        ("rejections", stored.rejections),
        ("runs that never ended", stored.unended),
    ):
        if left:
            yield f"{what}: {left}"


def lines_are_whole(calls: Sequence[Call]) -> Iterator[str]:
    if not any(call.destination == LINES for call in calls):
        yield "nothing was told to the file"
