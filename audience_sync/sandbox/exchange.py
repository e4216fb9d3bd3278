"""From a request to its answer: the door, the failure that was drawn, the API, the journal."""

from __future__ import annotations

from dataclasses import dataclass

from audience_sync.sandbox import crisp, segment
from audience_sync.sandbox.asked import Answer, Asked
from audience_sync.sandbox.faults import Failure, Fault
from audience_sync.sandbox.state import State

OF_CRISP = ("website", "plugin")
LARGEST_BODY = 1_000_000
"""Bytes, as they come; Crisp documents no limit. No more of a body is read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exchange:
    """``fault``: what is to happen to the answer on its way."""

    answer: Answer
    fault: Fault | None = None


def exchange(state: State, asked: Asked) -> Exchange:
    """Carry a request out and write it down."""
    is_crisp = asked.segments[1:2] and asked.segments[1] in OF_CRISP
    made, drawn = _of_crisp(state, asked) if is_crisp else _of_segment(state, asked)
    is_refusal = made.answer.is_refusal or made.fault is not None
    state.journal.add(
        api="crisp" if is_crisp else "segment",
        method=asked.method,
        path=asked.path,
        route=state.crisp.route(asked) if is_crisp else state.segment.route(asked),
        outcome=made.fault.name if made.fault else str(made.answer.status),
        reason=f"--fail {drawn.name}" if drawn else made.answer.reason,
        is_refusal=is_refusal,
        body=_readable(asked),
    )
    return made


def _of_crisp(state: State, asked: Asked) -> tuple[Exchange, Failure | None]:
    refused = state.crisp_door.refusal(asked)
    if refused is not None:
        return Exchange(answer=refused), None
    if len(asked.body) > LARGEST_BODY:
        return Exchange(answer=crisp.refusal(413, "too_large")), None
    drawn = state.dice.draw()
    if drawn is not None and drawn.status is not None:
        return Exchange(answer=crisp.refusal(drawn.status, "sandbox_fault")), drawn
    fault = drawn.fault if drawn else None
    if fault is not None and fault.name == "partial":
        # Nobody learns of it but by reading.
        return Exchange(answer=state.crisp.answer(asked, partial=True)), None
    if fault is not None and not fault.applies:
        return Exchange(answer=crisp.success("", {}), fault=fault), drawn
    answer = state.stale.get(asked)
    if answer is None:
        answer = state.crisp.answer(asked)
        state.stale.put(asked, answer)
    return Exchange(answer=answer, fault=fault), drawn


def _of_segment(state: State, asked: Asked) -> tuple[Exchange, Failure | None]:
    refused = state.segment.refusal(asked)
    if refused is not None:
        return Exchange(answer=refused), None
    drawn = state.dice.draw()
    if drawn is not None and drawn.status == 429:
        return Exchange(answer=segment.slow_down(0.0)), drawn
    if drawn is not None and drawn.status is not None:
        return Exchange(answer=segment.refusal(drawn.status, "sandbox fault")), drawn
    fault = drawn.fault if drawn and drawn.name != "partial" else None
    if fault is not None and not fault.applies:
        return Exchange(answer=segment.success(""), fault=fault), drawn
    return Exchange(answer=state.segment.answer(asked), fault=fault), drawn if fault else None


def _readable(asked: Asked) -> bytes:
    return b"(gzip)" if asked.headers.get("content-encoding") else asked.body
