"""``audience-sync check``: everything that can be wrong, before the first run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import rich_click as click

from audience_sync.cli.opened import opened, present
from audience_sync.cli.output import say
from audience_sync.cli.render import left, to_json
from audience_sync.domain.audience import Kind
from audience_sync.errors import AudienceSyncError, worst

if TYPE_CHECKING:
    from audience_sync.bootstrap import App, Destination
    from audience_sync.pipeline.captures import Configured

OK = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """One thing that was looked at; also what ``--json`` shows of it."""

    what: str
    name: str
    ok: bool
    text: str
    hint: str | None
    exit_code: int


@click.command()
@click.option("--offline", is_flag=True, help="Reach no destination and no database.")
@click.option("--json", "as_json", is_flag=True)
@click.pass_context
def check(context: click.Context, offline: bool, as_json: bool) -> int:
    """Validate the configuration, reach sources and destinations. Sends and writes nothing."""
    found: list[Checked] = []
    with opened(context, writes=False, offline=offline) as app:
        for checked in _checks(app, offline=offline):
            found.append(checked)
            if not as_json:
                _print(checked)
    if as_json:
        say(to_json({"checks": found}))
    return worst([checked.exit_code for checked in found])


def _checks(app: App, *, offline: bool) -> Iterator[Checked]:
    for configured in app.audiences.values():
        what = "audience" if configured.audience.kind is Kind.AUDIENCE else "computed trait"
        attempt = partial(_read, app, configured, offline=offline)
        yield _tried(what, configured.audience.key, attempt)
    for name, destination in app.destinations.items():
        if not offline:
            yield _tried("destination", name, partial(_reach, destination))


def _tried(what: str, name: str, attempt: Callable[[], str]) -> Checked:
    try:
        return Checked(what=what, name=name, ok=True, text=attempt(), hint=None, exit_code=OK)
    except AudienceSyncError as error:
        return Checked(
            what=what,
            name=name,
            ok=False,
            text=str(error),
            hint=error.hint,
            exit_code=error.exit_code,
        )


def _read(app: App, configured: Configured, *, offline: bool) -> str:
    from audience_sync.engines.columns import carried_columns

    audience = configured.audience
    if offline and app.config.sources[audience.source].type == "sql":
        return "not read, as its source is a database"
    with configured.source.read(audience.query, present()) as rows:
        _, carried = carried_columns(rows.schema, reserved=audience.key, kind=audience.kind)
    columns = ", ".join(["user_id", *(column.name for column in carried)])
    looked = not offline or app.config.store.url.startswith("sqlite")
    is_new = looked and app.snapshots.current(audience.key) is None
    return columns + ("   new key, permanent after the first capture" if is_new else "")


def _reach(destination: Destination) -> str:
    destination.reach()
    return "reached"


def _print(checked: Checked) -> None:
    mark = "ok    " if checked.ok else "WRONG "
    say(f"{mark}{left(checked.what, 15)}{left(checked.name, 28)}{checked.text}")
    if checked.hint:
        say(f"      {checked.hint}")
