"""What a ``sync`` did, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from audience_sync.cli.opened import present
from audience_sync.cli.output import say
from audience_sync.cli.render import clock_time, day, duration, left, number, plural, to_json
from audience_sync.errors import QuotaUsed

if TYPE_CHECKING:
    from audience_sync.errors import AudienceSyncError
    from audience_sync.pipeline.captures import CaptureOutcome
    from audience_sync.pipeline.delivered import Delivered

LEFT_OUT = {
    "paused": "neither captured nor told",
    "retired": "who is still to be told that, is told",
    "waits": "a resync was ordered, and waits for a capture",
}
"""What it means for an audience that nothing is wrong with."""

NEWS = ("held", "refused", "failed", "leased", "other plan", "renamed?", *LEFT_OUT)
"""Outcomes of a capture that a person should read; the others show as deliveries."""

LANE_WIDTH = 13


class TextReport:
    def show(
        self,
        captured: Sequence[CaptureOutcome],
        delivered: Sequence[Delivered],
        not_due: Sequence[tuple[str, datetime]],
        stopped: Mapping[str, datetime],
        seconds: float,
    ) -> None:
        for name, since in stopped.items():
            by_whom = f"by a person since {clock_time(since, present())}"
            say(f"{left(name)} {left('PAUSED', LANE_WIDTH)} {by_whom}: nothing is sent there")
            say(f"  what ends it: audience-sync resume --destination {name}")
        for capture in captured:
            for line in _capture_lines(capture):
                say(line)
        for delivery in delivered:
            for line in _delivery_lines(delivery):
                say(line)
        tried = [capture for capture in captured if capture.outcome not in LEFT_OUT]
        if not tried and not delivered and not_due:
            key, due = not_due[0]
            say(f"nothing due; next: {key} {clock_time(due, present())}")
        else:
            say(f"{_summary(captured, delivered)}, {duration(seconds)}")


def _capture_lines(capture: CaptureOutcome) -> Iterator[str]:
    captured = capture.captured
    if captured is not None and (refused := captured.examined.comparison.refused.total):
        head = f"{left(capture.audience)} {left(capture.outcome, LANE_WIDTH)}"
        yield f"{head} {plural(refused, 'row')} could not be used"
    if capture.outcome not in NEWS:
        return
    if captured is not None:
        reasons = "; ".join(captured.examined.verdict.reasons)
        yield f"{left(capture.audience)} {left('HELD', LANE_WIDTH)} {reasons}"
        yield f"  see: audience-sync diff {capture.audience}"
        yield f"  let it go: audience-sync approve {captured.examined.plan_id}"
    else:
        outcome = left(capture.outcome.upper(), LANE_WIDTH)
        yield f"{left(capture.audience)} {outcome} {capture.error or _left_out(capture)}"
        yield from _hint(capture.error)
        if capture.ends:
            yield f"  what ends it: {capture.ends}"


def _left_out(capture: CaptureOutcome) -> str:
    means = LEFT_OUT[capture.outcome]
    return f"{capture.why}: {means}" if capture.why else means


def _delivery_lines(delivery: Delivered) -> Iterator[str]:
    span = delivery.span
    lane = "HELD" if delivery.outcome == "held" else span.kind
    head = f"{left(span.audience)} {left(lane, LANE_WIDTH)} {span.destination}"
    if delivery.outcome == "held":
        members = plural(span.books.total, "member")
        yield f"{head}: first delivery to {members} waits for approval"
        yield f"  let it go: audience-sync approve {span.plan_id}"
        return
    if isinstance(delivery.error, QuotaUsed):
        yield f"{head} {_so_far(delivery, delivery.error)}"
        return
    yield f"{head} {_books(delivery)}"
    if delivery.error is not None:
        yield f"  {delivery.outcome}: {delivery.error}"
    yield from _hint(delivery.error)


def _hint(error: AudienceSyncError | None) -> Iterator[str]:
    if error is not None and error.hint:
        yield f"  {error.hint}"


def _so_far(delivery: Delivered, quota: QuotaUsed) -> str:
    books = delivery.span.books
    text = f"{number(books.handled)} of {number(books.total)}{_refused(delivery)}"
    text += f"; quota used, goes on {quota.until:%H:%M} UTC"
    return text + (f", done about {day(delivery.done_at, present())}" if delivery.done_at else "")


def _books(delivery: Delivered) -> str:
    books = delivery.span.books
    text = f"{number(delivery.accepted)} accepted{_refused(delivery)}"
    if books.remaining:
        text += f"; {number(books.remaining)} of {number(books.total)} wait"
    return text


def _refused(delivery: Delivered) -> str:
    text = f", {number(delivery.rejected)} rejected" if delivery.rejected else ""
    return text + (f", {number(delivery.skipped)} skipped" if delivery.skipped else "")


def _summary(captured: Sequence[CaptureOutcome], delivered: Sequence[Delivered]) -> str:
    captures = [capture.outcome for capture in captured]
    deliveries = [delivery.outcome for delivery in delivered]
    held = captures.count("held") + deliveries.count("held")
    failed = captures.count("failed") + captures.count("refused")
    failed += sum(delivery.failed for delivery in delivered)
    elsewhere = deliveries.count("leased")
    waiting = sum(delivery.span.books.remaining for delivery in delivered)
    saved = sum(delivery.saved for delivery in delivered)
    parts = [f"{deliveries.count('completed')} delivered"]
    parts += [f"{held} held"] if held else []
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{elsewhere} by another process"] if elsewhere else []
    parts += [f"{plural(waiting, 'member')} wait"] if waiting else []
    parts += [f"{plural(saved, 'request')} saved"] if saved else []
    return ", ".join(parts)


class JsonReport:
    def show(
        self,
        captured: Sequence[CaptureOutcome],
        delivered: Sequence[Delivered],
        not_due: Sequence[tuple[str, datetime]],
        stopped: Mapping[str, datetime],
        seconds: float,
    ) -> None:
        report = {
            "captures": [_capture(capture) for capture in captured],
            "deliveries": [_delivery(delivery) for delivery in delivered],
            "not_due": [{"audience": key, "next_due": due} for key, due in not_due],
            "paused_destinations": sorted(stopped),
            "seconds": round(seconds, 3),
        }
        say(to_json(report))


def _capture(capture: CaptureOutcome) -> dict[str, Any]:
    shown: dict[str, Any] = {"audience": capture.audience, "outcome": capture.outcome}
    captured = capture.captured
    if captured is not None:
        examined, comparison = captured.examined, captured.examined.comparison
        shown |= {
            "seq": captured.snapshot.seq if captured.snapshot else examined.from_seq,
            "entered": comparison.counts.entered,
            "exited": comparison.counts.exited,
            "updated": comparison.counts.updated,
            "refused": comparison.refused.total,
            "plan": examined.plan_id,
            "held_for": list(examined.verdict.reasons),
        }
    if capture.why:
        shown |= {"why": capture.why, "ends": capture.ends}
    return shown | _failure(capture.error)


def _delivery(delivery: Delivered) -> dict[str, Any]:
    span = delivery.span
    shown = {
        "audience": span.audience,
        "destination": span.destination,
        "lane": str(span.lane),
        "kind": str(span.kind),
        "outcome": delivery.outcome,
        "accepted": delivery.accepted,
        "rejected": delivery.rejected,
        "skipped": delivery.skipped,
        "saved": delivery.saved,
        "remaining": span.books.remaining,
        "plan": span.plan_id or None,
    }
    if isinstance(delivery.error, QuotaUsed):
        return shown | {"goes_on": delivery.error.until, "eta": delivery.done_at}
    return shown | _failure(delivery.error)


def _failure(error: AudienceSyncError | None) -> dict[str, Any]:
    return {"error": str(error), "hint": error.hint} if error is not None else {}
