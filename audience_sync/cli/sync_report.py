"""What a ``sync`` did, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import rich_click as click

from audience_sync.cli.opened import present
from audience_sync.cli.render import clock_time, duration, left, number, plural, to_json

if TYPE_CHECKING:
    from audience_sync.pipeline.cycle import CaptureOutcome
    from audience_sync.pipeline.lanes import Delivered

NEWS = ("held", "refused", "failed", "leased", "other plan")
"""Outcomes of a capture that a person should read; the others show as deliveries."""


class TextReport:
    def show(
        self,
        captures: Sequence[CaptureOutcome],
        delivered: Sequence[Delivered],
        not_due: Sequence[tuple[str, datetime]],
        seconds: float,
    ) -> None:
        for capture in captures:
            if capture.outcome in NEWS:
                _capture_line(capture)
        for delivery in delivered:
            _delivery_line(delivery)
        if not captures and not_due:
            key, due = not_due[0]
            click.echo(f"nothing due; next: {key} {clock_time(due, present())}")
        click.echo(_summary(captures, delivered) + f", {duration(seconds)}")


def _capture_line(capture: CaptureOutcome) -> None:
    captured = capture.captured
    if captured is not None and capture.outcome == "held":
        reasons = "; ".join(captured.examined.verdict.reasons)
        click.echo(f"{left(capture.audience)} {left('HELD')} {reasons}")
        click.echo(f"  see: audience-sync diff {capture.audience}")
        click.echo(f"  let it go: audience-sync approve {captured.examined.plan_id}")
        return
    click.echo(f"{left(capture.audience)} {left(capture.outcome.upper())} {capture.error}")
    if capture.error is not None and capture.error.hint:
        click.echo(f"  {capture.error.hint}")


def _delivery_line(delivery: Delivered) -> None:
    span = delivery.span
    head = f"{left(span.audience)} {left(span.lane, 13)} {span.destination} "
    if delivery.outcome == "held":
        members = plural(span.books.total, "member")
        click.echo(f"{left(span.audience)} {left('HELD')} {span.destination}: first delivery to "
                   f"{members} waits for approval")  # fmt: skip
        click.echo(f"  let it go: audience-sync approve {span.plan_id}")
        return
    text = f"{number(delivery.accepted)} accepted"
    text += f", {number(delivery.rejected)} rejected" if delivery.rejected else ""
    text += f", {number(delivery.skipped)} skipped" if delivery.skipped else ""
    if span.books.remaining:
        text += f"; {number(span.books.remaining)} of {number(span.books.total)} wait"
    click.echo(head + text)
    if delivery.error is not None:
        click.echo(f"  {delivery.outcome}: {delivery.error}")
        if delivery.error.hint:
            click.echo(f"  {delivery.error.hint}")


def _summary(captures: Sequence[CaptureOutcome], delivered: Sequence[Delivered]) -> str:
    held = sum(c.outcome == "held" for c in captures)
    held += sum(d.outcome == "held" for d in delivered)
    failed = sum(c.outcome in ("failed", "refused") for c in captures)
    failed += sum(d.error is not None for d in delivered)
    waiting = sum(d.span.books.remaining for d in delivered)
    parts = [f"{sum(d.outcome == 'completed' for d in delivered)} delivered"]
    parts += [f"{held} held"] if held else []
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{plural(waiting, 'member')} wait"] if waiting else []
    return ", ".join(parts)


class JsonReport:
    def show(
        self,
        captures: Sequence[CaptureOutcome],
        delivered: Sequence[Delivered],
        not_due: Sequence[tuple[str, datetime]],
        seconds: float,
    ) -> None:
        report = {
            "captures": [_capture(capture) for capture in captures],
            "deliveries": [_delivery(delivery) for delivery in delivered],
            "not_due": [{"audience": key, "next_due": due} for key, due in not_due],
            "seconds": round(seconds, 3),
        }
        click.echo(to_json(report))


def _capture(capture: CaptureOutcome) -> dict[str, Any]:
    shown: dict[str, Any] = {"audience": capture.audience, "outcome": capture.outcome}
    captured, error = capture.captured, capture.error
    if captured is not None:
        counts = captured.examined.comparison.counts
        shown |= {
            "seq": captured.snapshot.seq if captured.snapshot else captured.examined.from_seq,
            "entered": counts.entered,
            "exited": counts.exited,
            "updated": counts.updated,
            "refused": captured.examined.comparison.refused.total,
            "plan": captured.examined.plan_id,
            "held_for": list(captured.examined.verdict.reasons),
        }
    return shown | ({"error": str(error), "hint": error.hint} if error else {})


def _delivery(delivery: Delivered) -> dict[str, Any]:
    span = delivery.span
    shown = {
        "audience": span.audience,
        "destination": span.destination,
        "lane": str(span.lane),
        "outcome": delivery.outcome,
        "accepted": delivery.accepted,
        "rejected": delivery.rejected,
        "skipped": delivery.skipped,
        "remaining": span.books.remaining,
    }
    error = delivery.error
    return shown | ({"error": str(error), "hint": error.hint} if error else {})
