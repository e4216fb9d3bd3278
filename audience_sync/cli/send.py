"""``audience-sync send``: one Identify or Track call by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from audience_sync.cli import completion
from audience_sync.cli.lever import given
from audience_sync.cli.opened import opened, places
from audience_sync.cli.output import complain, say, warn
from audience_sync.cli.render import to_json
from audience_sync.domain.audience import Value
from audience_sync.domain.by_hand import ByHand, CallKind, parse_pair
from audience_sync.domain.forgotten import reference
from audience_sync.domain.span import Refusal
from audience_sync.domain.user_id import unusable_id
from audience_sync.errors import (
    AudienceSyncError,
    BadCalls,
    DestinationPaused,
    UsageError,
    worst,
)

if TYPE_CHECKING:
    from audience_sync.app import App

EXIT_REFUSED = 1

Command = TypeVar("Command", bound=Callable[..., Any])


class Pair(click.ParamType[tuple[str, Value]]):
    name = "key=value"

    def convert(
        self, value: object, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[str, Value]:
        if isinstance(value, tuple):
            return value
        try:
            return parse_pair(str(value))
        except ValueError as error:
            self.fail(str(error))


def _whom_and_where(command: Command) -> Command:
    """Adds what both calls have."""
    for option in (
        click.option("--json", "as_json", is_flag=True),
        click.option("--reason", help="Kept in the history."),
        click.option(
            "--destination",
            "destinations",
            multiple=True,
            shell_complete=completion.destinations,
            help="Needed where there are several.",
        ),
        click.option("--user-id", required=True),
    ):
        command = option(command)
    return command


@click.group()
def send() -> None:
    """Make one call by hand: identify a user, or track an event."""


@send.command()
@click.option("--trait", "traits", multiple=True, type=Pair(), help="E.g. plan=pro; := takes JSON.")
@_whom_and_where
@click.pass_context
def identify(context: click.Context, /, traits: Sequence[tuple[str, Value]], **common: Any) -> int:
    """Set traits of a user.

    VALUE is text, unless it looks like a number, true, false or null; KEY:=JSON says it outright.
    """
    return _send(context, CallKind.IDENTIFY, traits, **common)


@send.command()
@click.option("--event", required=True, help='What the user did, e.g. "Completed Purchase".')
@click.option("--property", "properties", multiple=True, type=Pair(), help="As --trait.")
@_whom_and_where
@click.pass_context
def track(
    context: click.Context, /, event: str, properties: Sequence[tuple[str, Value]], **common: Any
) -> int:
    """Add an event to what a user did."""
    if not event.strip():
        raise UsageError("the event has no name")
    return _send(context, CallKind.TRACK, properties, event=event, **common)


def _send(
    context: click.Context,
    kind: CallKind,
    content: Sequence[tuple[str, Value]],
    *,
    user_id: str,
    destinations: Sequence[str],
    reason: str | None,
    as_json: bool,
    event: str = "",
) -> int:
    if why := unusable_id(user_id):
        raise UsageError(f"--user-id cannot be told: {why}")
    if kind is CallKind.IDENTIFY and any(key == "user_id" for key, _ in content):
        raise UsageError("user_id is no trait of its own", hint="it is told as --user-id says")
    with opened(context, writes=True) as app:
        from audience_sync.app import now

        call = ByHand(
            kind=kind, user_id=user_id, content=_once(content), event=event.strip(), at=now()
        )
        names = _places(app, destinations)
        _warn_of_audiences(app, call)
        results = [_sent(app, name, call, reason) for name in names]
    if as_json:
        say(to_json({"calls": [result for result, _ in results]}))
    else:
        for result, _ in results:
            say(f"{result['destination']}  {kind} {_said(result)}")
    return worst([code for _, code in results])


def _said(result: dict[str, str]) -> str:
    """Why it failed stands in the error already, which has more to say."""
    outcome = result["outcome"]
    why = "" if outcome == "failed" else result.get("reason", "")
    return f"{outcome}: {why}" if why else outcome


def _once(content: Sequence[tuple[str, Value]]) -> dict[str, Value]:
    made: dict[str, Value] = {}
    for key, value in content:
        if key in made:
            raise UsageError(f"{key} is given twice")
        made[key] = value
    return made


def _places(app: App, destinations: Sequence[str]) -> list[str]:
    names = places(app, destinations)
    if not destinations and len(names) > 1:
        raise UsageError("which destination?", hint=f"--destination {' or '.join(sorted(names))}")
    stopped = app.orders.stopped()
    for name in names:
        if name in stopped:
            raise UsageError(f"{name} is paused", hint=f"audience-sync resume --destination {name}")
    return names


def _warn_of_audiences(app: App, call: ByHand) -> None:
    """A trait that an audience tells stays as it is by hand until the member changes again."""
    if call.kind is CallKind.IDENTIFY:
        for key in sorted(app.audiences.keys() & call.content.keys()):
            warn(f"warning: {key} is told by the audience of that key; a resync would tell it anew")


def _sent(app: App, name: str, call: ByHand, reason: str | None) -> tuple[dict[str, str], int]:
    try:
        refusal = _refusal(app, name, call)
    except BadCalls as refused:
        refusal = Refusal(user_id=call.user_id, reason=str(refused))
    except UsageError:
        raise
    except AudienceSyncError as error:
        complain(error)
        # A used-up quota is no failure of a run, which goes on tomorrow; this call does not.
        code = error.exit_code or DestinationPaused.exit_code
        return {"destination": name, "outcome": "failed", "reason": str(error)}, code
    if refusal is None:
        app.orders.sent(name, str(call.kind), given(reason))
        return {"destination": name, "outcome": "accepted"}, 0
    outcome = "skipped" if refusal.skipped else "refused"
    return {"destination": name, "outcome": outcome, "reason": refusal.reason}, EXIT_REFUSED


def _refusal(app: App, name: str, call: ByHand) -> Refusal | None:
    """Make the call; why it was not accepted.

    Raises:
        AudienceSyncError: nothing is known, or nothing may be sent.
    """
    to = app.destinations[name]
    forgotten = app.snapshots.forgotten()
    if forgotten and reference(forgotten.salt, call.user_id) in forgotten.references:
        raise UsageError("this user asked to be forgotten, and is told nothing")
    made = to.by_hand(call, app.installation.key)
    if isinstance(made, Refusal):
        return made
    with closing(to.sender()) as sender:
        sent = sender.send([made])
    app.learn(name, sent.contacts)
    return next(iter(sent.refusals), None)
