"""``audience-sync status``: where everything stands, problems first."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import rich_click as click

from audience_sync.cli.opened import opened, present
from audience_sync.cli.render import clock_time, duration, number, table, to_json
from audience_sync.domain.quota import Lane, share

if TYPE_CHECKING:
    from audience_sync.bootstrap import App
    from audience_sync.pipeline.cycle import Configured
    from audience_sync.pipeline.ports import Pause, Snapshot
    from audience_sync.store.overview import AudienceState, DeliveryState

EXIT_TROUBLE = 4


@click.command()
@click.option("--json", "as_json", is_flag=True)
@click.option("--exit-code", is_flag=True, help="Exit with 4 when something needs a person.")
@click.pass_context
def status(context: click.Context, as_json: bool, exit_code: bool) -> int:
    """Show audiences, deliveries, and what needs a person."""
    with opened(context, writes=False) as app:
        found = _Status(app)
        shown = [found.audience(configured) for configured in app.audiences.values()]
        problems = found.problems(shown)
        if as_json:
            click.echo(to_json({"audiences": shown, "gone": found.gone()}))
        else:
            for line in [*problems, *_lines(app, shown)]:
                click.echo(line)
    return EXIT_TROUBLE if exit_code and problems else 0


class _Status:
    def __init__(self, app: App) -> None:
        from audience_sync.store import overview

        self._app = app
        self._now = present()
        self._audiences = overview.audiences(app.database)
        self._deliveries = {
            (d.audience, d.destination): d for d in overview.deliveries(app.database)
        }
        self._held: dict[str, Snapshot] = {}
        for snapshot in app.snapshots.held():
            self._held.setdefault(snapshot.audience, snapshot)
        self._pauses = {name: app.books.paused(name) for name in app.destinations}

    def gone(self) -> list[str]:
        """Audiences that are no longer configured: nothing is told about them."""
        return sorted(self._audiences.keys() - self._app.audiences.keys())

    def audience(self, configured: Configured) -> dict[str, Any]:
        audience = configured.audience
        state = self._audiences.get(audience.key)
        held = self._held.get(audience.key)
        return {
            "key": audience.key,
            "name": audience.name,
            "kind": "audience",
            "state": "held" if held else "active" if state else "new",
            "members": state.members if state else 0,
            "seq": state.seq if state else 0,
            "captured_at": state.captured_at if state else None,
            "next_due": state.next_due if state else None,
            "error": state.last_error if state else None,
            "held": _held(held),
            "destinations": [self._destination(audience.key, state, n) for n in audience.destinations],
        }  # fmt: skip

    def _destination(self, key: str, state: AudienceState | None, name: str) -> dict[str, Any]:
        delivery = self._deliveries.get((key, name))
        shown: dict[str, Any] = {"name": name}
        if delivery is None:
            members = state.members if state else 0
            to_seq = state.seq if state else 0
            waits = "waiting" if to_seq else "new"
            return shown | _books("initial", waits, None, to_seq, members, 0, 0, 0, members, None)
        newest = state.seq if state else 0
        behind = delivery.state == "completed" and newest > delivery.to_seq
        if behind:
            waiting = self._app.spans.changes_after(key, delivery.to_seq)  # type: ignore[arg-type]
            told = delivery.told_seq
            return shown | _books("incremental", "waiting", told, newest, waiting, 0, 0, 0, waiting, None)  # fmt: skip
        books, state_word = delivery.books, self._word(delivery)
        eta = self._eta(delivery) if state_word == "open" else None
        return shown | _books(
            delivery.lane,
            state_word,
            delivery.told_seq,
            delivery.to_seq,
            books.total,
            books.accepted,
            books.rejected,
            books.skipped,
            books.remaining,
            eta,
        ) | ({"approve": delivery.plan_id, "held_for": delivery.held_for} if state_word == "held" else {})  # fmt: skip

    def _word(self, delivery: DeliveryState) -> str:
        if delivery.state == "completed":
            return "ok"
        if delivery.state == "open" and self._pauses[delivery.destination]:
            return "paused"
        return delivery.state

    def _eta(self, delivery: DeliveryState) -> datetime:
        destination = self._app.destinations[delivery.destination]
        lane = Lane(delivery.lane)
        part = share(lane, reserve=destination.reserve, initial_open=lane is Lane.INITIAL)
        return self._now + timedelta(seconds=delivery.books.remaining / (destination.rate * part))

    def problems(self, shown: list[dict[str, Any]]) -> list[str]:
        """Problems first, the next command beside each."""
        lines = []
        for audience in shown:
            if held := audience["held"]:
                lines.append(f"! {audience['key']} held   {held['limit']}   approve {held['id']}")
            if audience["error"]:
                lines.append(f"! {audience['key']} failed   {audience['error']}")
            lines += [
                f"! {audience['key']} → {place['name']} held   {place['held_for']}"
                f"   approve {place['approve']}"
                for place in audience["destinations"]
                if place["state"] == "held"
            ]
        lines += [
            f"! {name} paused   {pause.reason} since {clock_time(pause.since, self._now)}; "
            "nothing lost"
            for name, pause in self._paused()
        ]
        lines += [
            f"! {key} is no longer configured; nothing is told about it" for key in self.gone()
        ]
        return lines

    def _paused(self) -> list[tuple[str, Pause]]:
        return [(name, pause) for name, pause in self._pauses.items() if pause is not None]


def _held(held: Snapshot | None) -> dict[str, Any] | None:
    if held is None:
        return None
    return {
        "id": held.plan_id,
        "entered": held.counts.entered,
        "exited": held.counts.exited,
        "limit": "; ".join(held.held_for),
    }


def _books(
    lane: str,
    state: str,
    told_seq: int | None,
    to_seq: int,
    total: int,
    accepted: int,
    rejected: int,
    skipped: int,
    remaining: int,
    eta: datetime | None,
) -> dict[str, Any]:
    return {
        "lane": lane,
        "state": state,
        "told_seq": told_seq,
        "to_seq": to_seq,
        "total": total,
        "accepted": accepted,
        "rejected": rejected,
        "skipped": skipped,
        "remaining": remaining,
        "eta": eta,
    }


def _lines(app: App, shown: list[dict[str, Any]]) -> list[str]:
    names = list(app.destinations)
    head = ["AUDIENCE", "MEMBERS", "CAPTURED", "NEXT", *(name.upper() for name in names)]
    return table([head, *(_row(audience, names) for audience in shown)])


def _row(audience: dict[str, Any], names: list[str]) -> list[str]:
    now = present()
    captured, due = audience["captured_at"], audience["next_due"]
    places = {place["name"]: place for place in audience["destinations"]}
    ago = f" ({_ago(now, captured)})" if captured else ""
    return [
        audience["key"],
        number(audience["members"]),
        clock_time(captured, now) + ago if captured else "never",
        clock_time(due, now) if due else "next run",
        *(_cell(places.get(name)) for name in names),
    ]


def _ago(now: datetime, then: datetime) -> str:
    seconds = (now - then).total_seconds()
    return f"{duration(seconds)} ago" if seconds >= 1 else "now"


def _cell(place: dict[str, Any] | None) -> str:
    if place is None:
        return "–"
    if place["state"] == "open" and place["lane"] == "initial" and place["total"]:
        return f"initial {100 * (place['total'] - place['remaining']) // place['total']} %"
    if place["state"] in ("waiting", "open", "paused"):
        return f"{number(place['remaining'])} wait"
    return str(place["state"])
