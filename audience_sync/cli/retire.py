"""``audience-sync retire``: close an audience for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rich_click as click

from audience_sync.cli import completion
from audience_sync.cli.lever import given, lever
from audience_sync.cli.opened import confirm, named, opened
from audience_sync.cli.output import say
from audience_sync.cli.render import plural
from audience_sync.errors import UsageError

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.domain.audience import AudienceKey, Known, OnRetire


@click.command()
@click.argument("audiences", shell_complete=completion.audiences, nargs=-1, required=True)
@click.option(
    "--on-retire",
    type=click.Choice(["tell_false", "leave"]),
    help="What becomes of the members. [default: as configured, else tell_false]",
)
@lever
@click.pass_context
def retire(
    context: click.Context,
    audiences: tuple[str, ...],
    on_retire: str | None,
    reason: str | None,
    yes: bool,
) -> int:
    """Close AUDIENCES for good, also such as are no longer configured.

    With tell_false all members leave, past the guard, and every destination is told so. With
    leave nobody is told anything more. A key is never used again.
    """
    with opened(context, writes=True) as app:
        keys = named(app, audiences)
        meant = {key: _meant(app, key, on_retire) for key in keys}
        for key, how in meant.items():
            say(_sentence(_known(app, key), how))
        confirm("Retire for good?", yes=yes)
        for key, how in meant.items():
            _retire(app, key, how, reason)
    say("retired; the next sync tells who is to be told")
    if still := [key for key in keys if key in app.audiences]:
        say(f'  take it out of the configuration, or write state = "retired": {", ".join(still)}')
    return 0


def _known(app: App, key: AudienceKey) -> Known:
    known = app.orders.known().get(key)
    if known is None or not known.seq:
        raise UsageError(f"{key} was never captured", hint="take it out of the configuration")
    if known.retired_at:
        raise UsageError(f"{key} is retired already")
    return known


def _meant(app: App, key: AudienceKey, on_retire: str | None) -> OnRetire:
    from audience_sync.domain.audience import OnRetire

    if on_retire is not None:
        return OnRetire(on_retire)
    configured = app.audiences.get(key)
    return configured.on_retire if configured else OnRetire.TELL_FALSE


def _sentence(known: Known, how: OnRetire) -> str:
    members = plural(known.members, "member")
    to = ", ".join(sorted(known.told_to)) or "nobody"
    if how == "leave":
        return f"{known.key}  {members} keep what they were told ({to})"
    return f"{known.key}  {members} leave; told to {to}"


def _retire(app: App, key: AudienceKey, how: OnRetire, reason: str | None) -> None:
    from audience_sync.domain.audience import Audience

    known = _known(app, key)
    configured = app.audiences.get(key)
    gone = Audience(key=key, name=known.name, source="", query="", destinations=(), kind=known.kind)
    app.retire(configured.audience if configured else gone, how, given(reason))
