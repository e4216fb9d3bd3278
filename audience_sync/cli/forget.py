"""``audience-sync forget``: a person's right to be erased, as far as this store goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import rich_click as click

from audience_sync.cli.lever import given
from audience_sync.cli.opened import confirm, opened
from audience_sync.cli.output import say
from audience_sync.cli.render import plural
from audience_sync.errors import UsageError

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.store.traces import Traces


@click.command()
@click.argument("users", nargs=-1, required=True, metavar="USER...")
@click.option("--reason", help="Kept in the history; must not name the user.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def forget(context: click.Context, users: tuple[str, ...], reason: str | None, yes: bool) -> int:
    """Remove users from the store, and never capture or tell them again.

    USER is a user_id, or an e-mail: then everyone who has it, or had it. Whoever is not found is
    remembered all the same, as a user_id.
    """
    from audience_sync.app import now
    from audience_sync.store.forget import Forgetting, Order, check_reason

    users = _checked(users)
    check_reason(reason, users)
    with opened(context, writes=True) as app:
        user_ids = list(dict.fromkeys(chain.from_iterable(_ids(app, user) for user in users)))
        forgetting = Forgetting(app.database, app.patient_leases, now)
        for line in _found(forgetting.find(user_ids), user_ids):
            say(line)
        confirm(f"Forget {plural(len(user_ids), 'user')} for good?", yes=yes)
        order = Order(user_ids=user_ids, typed=users, given=given(reason))
        forgetting.forget(order, app.audiences.keys())
        say("forgotten: nothing in the store names them, no capture brings them back")
        for line in _elsewhere(app):
            say(line)
    return 0


def _ids(app: App, user: str) -> list[str]:
    """Whose id it is; else, of what may be an e-mail, everyone who has it or had it."""
    from audience_sync.store.overview import audiences
    from audience_sync.store.traces import find

    if "@" not in user or find(app.database, [user]).chunks:
        return [user]
    captured = [key for key, state in audiences(app.database).items() if state.seq]
    found = sorted(set().union(*(app.lookups.with_email(key, user) for key in captured)))
    if found:
        say(f"{user}  is the e-mail of {', '.join(found)}")
    return found or [user]


def _checked(users: Sequence[str]) -> tuple[str, ...]:
    if not all(user.strip() for user in users):
        raise UsageError("a USER is empty", hint="audience-sync forget USER…")
    if not all(user.isprintable() for user in users):
        raise UsageError("a USER holds characters that no user_id can have")
    return tuple(dict.fromkeys(users))


def _found(traces: Traces, user_ids: Sequence[str]) -> Iterator[str]:
    for user_id in user_ids:
        audiences = traces.audiences_of(user_id)
        if audiences:
            yield f"{user_id}  in the log of {', '.join(audiences)}"
        else:
            yield f"{user_id}  not in the log; remembered all the same"
    if traces.rejections:
        yield f"  {plural(traces.rejections, 'rejection')} of them"


def _elsewhere(app: App) -> Iterator[str]:
    """What is not ours to remove."""
    from audience_sync.store.overview import destinations

    if told := sorted(destinations(app.database)):
        yield f"  what {', '.join(told)} was told stays there: delete the person there too"
    yield "  the source keeps its rows of them: those are left out from now on"
    yield "  backups of the store keep them: forget them again after restoring one"
