"""``audience-sync check``: everything that can be wrong, before the first run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import rich_click as click

from audience_sync.cli.opened import opened, present
from audience_sync.cli.render import left, to_json
from audience_sync.errors import AudienceSyncError, worst

if TYPE_CHECKING:
    from audience_sync.bootstrap import App
    from audience_sync.pipeline.cycle import Configured


@click.command()
@click.option("--offline", is_flag=True, help="Do not reach destinations.")
@click.option("--json", "as_json", is_flag=True)
@click.pass_context
def check(context: click.Context, offline: bool, as_json: bool) -> int:
    """Validate the configuration, reach sources and destinations. Sends and writes nothing."""
    found: list[dict[str, Any]] = []
    codes: list[int] = []
    with opened(context, writes=False) as app:
        for what, name, result in _checks(app, offline=offline):
            failed = isinstance(result, AudienceSyncError)
            hint = result.hint if isinstance(result, AudienceSyncError) else None
            found.append(
                {"what": what, "name": name, "ok": not failed, "text": str(result), "hint": hint}
            )
            codes += [result.exit_code] if isinstance(result, AudienceSyncError) else []
            if not as_json:
                _print(found[-1])
    if as_json:
        click.echo(to_json({"checks": found}))
    return worst(codes)


def _checks(app: App, *, offline: bool) -> Iterator[tuple[str, str, str | AudienceSyncError]]:
    for configured in app.audiences.values():
        yield "audience", configured.audience.key, _tried(lambda c=configured: _audience(app, c))
    for name, destination in app.destinations.items():
        if not offline:
            yield "destination", name, _tried(lambda d=destination: _reached(d))


def _tried(attempt: Any) -> str | AudienceSyncError:
    try:
        return str(attempt())
    except AudienceSyncError as error:
        return error


def _audience(app: App, configured: Configured) -> str:
    from audience_sync.engines.columns import carried_columns

    audience = configured.audience
    with configured.source.read(audience.query, present()) as rows:
        _, carried = carried_columns(rows.schema, reserved=audience.key)
    columns = ", ".join(["user_id", *(column.name for column in carried)])
    is_new = app.snapshots.current(audience.key) is None
    return columns + ("   new key, permanent after the first capture" if is_new else "")


def _reached(destination: Any) -> str:
    destination.reach()
    return "reached"


def _print(found: dict[str, Any]) -> None:
    mark = "ok    " if found["ok"] else "WRONG "
    click.echo(f"{mark}{left(found['what'], 13)}{left(found['name'], 20)}{found['text']}")
    if found["hint"]:
        click.echo(f"      {found['hint']}")
