"""``audience-sync check``: everything that can be wrong, before the first run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import rich_click as click

from audience_sync.cli.opened import opened, present
from audience_sync.cli.output import say
from audience_sync.cli.render import left, to_json
from audience_sync.domain.audience import Kind
from audience_sync.errors import AudienceSyncError, worst

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.pipeline.admission import Admission
    from audience_sync.pipeline.captures import Configured
    from audience_sync.wiring import Destination

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
    admission, stopped = app.admission(), app.orders.stopped()
    for configured in app.audiences.values():
        what = "audience" if configured.audience.kind is Kind.AUDIENCE else "computed trait"
        attempt = partial(_read, app, configured, offline=offline)
        yield _left_out(_tried(what, configured.audience.key, attempt), admission, configured)
    for name, destination in app.destinations.items():
        if not offline:
            reached = _tried("destination", name, partial(_reach, destination))
            if name in stopped:
                ends = f"audience-sync resume --destination {name}"
                reached = _noted(reached, f"paused by a person; what ends it: {ends}")
            yield reached


def _left_out(checked: Checked, admission: Admission, configured: Configured) -> Checked:
    """``checked``, and why it is not captured, where it is not."""
    refusal = admission.refusal(configured)
    if refusal is None:
        return checked
    if refusal.error is None:
        return _noted(checked, f"{refusal.outcome} {refusal.why}; what ends it: {refusal.ends}")
    error = refusal.error
    return replace(checked, ok=False, text=str(error), hint=error.hint, exit_code=error.exit_code)


def _noted(checked: Checked, note: str) -> Checked:
    return replace(checked, text=f"{checked.text}   {note}")


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
    columns = ["user_id", *(column.name for column in carried)]
    looked = not offline or app.config.store.url.startswith("sqlite")
    is_new = looked and app.snapshots.current(audience.key) is None
    notes = ["new key, permanent after the first capture"] if is_new else []
    return "   ".join([", ".join(columns), *notes, *_makes_nobody(app, configured, columns)])


def _makes_nobody(app: App, configured: Configured, columns: Sequence[str]) -> Iterator[str]:
    """A forgotten column would read as a success: all would be skipped."""
    for name in configured.audience.destinations:
        if app.config.destinations[name].type == "crisp" and "email" not in columns:
            yield f"without a column email {name} makes no new profile"


def _reach(destination: Destination) -> str:
    destination.reach()
    return "reached"


def _print(checked: Checked) -> None:
    mark = "ok    " if checked.ok else "WRONG "
    say(f"{mark}{left(checked.what, 15)}{left(checked.name, 28)}{checked.text}")
    if checked.hint:
        say(f"      {checked.hint}")
