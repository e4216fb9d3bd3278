"""Runs that overlap, guards around nobody, and one audience that cannot be read."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from audience_sync.app import App
from audience_sync.bootstrap import build
from audience_sync.cli.counting import Counting
from audience_sync.cli.forecast import forecasts
from audience_sync.config.load import load
from audience_sync.domain.audience import AudienceKey, OnRetire
from audience_sync.errors import LeaseLost, LeaseTaken
from audience_sync.pipeline.capture import commit, examine
from audience_sync.store.orders import Given
from audience_sync.store.schema import audience, chunk, destination, snapshot
from tests.fakes.snapshot_log import column, execute

CONFIG = """
[store]
url = "sqlite:///state.db"
[guard]
max_initial = 5
[sources.shop]
type = "files"
root = "."
[destinations.calls]
type = "ndjson"
path = "{path}"
[[audiences]]
name = "Vip"
source = "shop"
query = "SELECT user_id FROM 'vip.csv'"
destinations = ["calls"]
[[audiences]]
name = "Old"
source = "shop"
query = "SELECT user_id FROM 'old.csv'"
destinations = ["calls"]
"""
NOON = datetime(2026, 10, 7, 12, tzinfo=UTC)


class Shop:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("vip", ["u1", "u2"])
        self.write("old", ["o1"])

    def write(self, name: str, users: Sequence[str]) -> None:
        (self.folder / f"{name}.csv").write_text("\n".join(["user_id", *users]) + "\n")

    def app(self, path: str = "calls.ndjson") -> App:
        (self.folder / "config.toml").write_text(CONFIG.format(path=path))
        return build(load([self.folder / "config.toml"], {}), writes=True)

    def lines(self, path: str = "calls.ndjson") -> int:
        file = self.folder / path
        return len(file.read_text().splitlines()) if file.exists() else 0


def capture(app: App, time: datetime, key: str = "vip", *, due: bool = False) -> str:
    configured = next(c for k, c in app.audiences.items() if k == key)
    return app.captures().capture(configured, time, only_if_due=due).outcome


def deliver(app: App) -> list[str]:
    delivered = app.deliveries(lambda _span: None).deliver(threading.Event())
    return [f"{d.span.audience} {d.outcome} {d.accepted}" for d in delivered]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.mark.parametrize("due", [True, False])
def test_a_run_that_was_overtaken_does_not_capture_backwards(shop: Shop, due: bool) -> None:
    """A slow run fixed its cycle time at its start; a quicker one captured for a later time."""
    app = shop.app()
    assert capture(app, NOON) == "committed"
    shop.write("vip", ["u1"])
    assert capture(app, NOON - timedelta(seconds=7), due=due) == "not due"
    current = app.snapshots.current(next(iter(app.audiences)))
    assert current is not None
    assert current.counts.members == 2


def test_after_the_clock_went_back_captures_go_on(shop: Shop) -> None:
    app = shop.app()
    ahead = datetime.now(UTC) + timedelta(days=365)
    capture(app, ahead)
    shop.write("vip", ["u1", "u2", "u3"])
    assert capture(app, datetime.now(UTC), due=True) == "committed"


def test_a_full_audience_after_an_empty_first_snapshot_is_held(shop: Shop) -> None:
    app = shop.app()
    shop.write("vip", [])
    capture(app, NOON)
    deliver(app)
    shop.write("vip", [f"u{i}" for i in range(6)])
    assert capture(app, NOON + timedelta(hours=3)) == "committed"
    assert deliver(app) == ["vip held 0"]
    assert shop.lines() == 0


def test_one_damaged_audience_stops_no_other(shop: Shop) -> None:
    app = shop.app()
    capture(app, NOON)
    capture(app, NOON, "old")
    deliver(app)
    with app.database.write() as connection:
        vip = connection.scalar(audience.select().where(audience.c.key == "vip"))
        connection.execute(
            update(chunk).where(chunk.c.snapshot_id == vip).values(payload=b"damaged")
        )
    later = NOON + timedelta(hours=3)
    shop.write("old", ["o1", "o2"])
    assert capture(app, later) == "failed"
    assert capture(app, later, "old") == "committed"
    assert deliver(app) == ["old completed 1"]


@pytest.mark.parametrize("how", [OnRetire.TELL_FALSE, OnRetire.LEAVE])
def test_a_capture_that_was_decided_before_a_retirement_brings_nobody_back(
    shop: Shop, how: OnRetire
) -> None:
    """It is looked at again under the lease, which a retirement takes too."""
    app, key = shop.app(), AudienceKey("vip")
    capture(app, NOON)
    admission = app.admission()
    app.retire(app.audiences[key].audience, how, Given(actor="ann@ops"))
    assert admission.refusal(app.audiences[key]) is None, "decided by what was known before"
    shop.write("vip", ["u1", "u2", "u3"])
    assert capture(app, NOON + timedelta(hours=3)) == "retired"
    assert app.snapshots.current(key).counts.members == (0 if how is OnRetire.TELL_FALSE else 2)


def test_a_retirement_waits_for_no_capture_and_a_lost_lease_commits_nothing(shop: Shop) -> None:
    app, key = shop.app(), AudienceKey("vip")
    capture(app, NOON)
    configured = app.audiences[key]
    with app.leases.hold(f"capture:{key}") as slow:
        with pytest.raises(LeaseTaken):
            app.retire(configured.audience, OnRetire.LEAVE, Given(actor="ann@ops"))
        shop.write("vip", ["u1", "u2", "u3"])
        later = NOON + timedelta(hours=3)
        with examine(
            configured.audience,
            source=configured.source,
            engine=app.engine,
            snapshots=app.snapshots,
            limits=configured.limits,
            cycle_time=later,
        ) as examined:
            # Its process slept, and its lease ran out meanwhile.
            execute(app.database, "UPDATE lease SET expires_at = 0")
            app.retire(configured.audience, OnRetire.TELL_FALSE, Given(actor="ann@ops"))
            with pytest.raises(LeaseLost):
                commit(
                    examined,
                    snapshots=app.snapshots,
                    lease=slow,
                    next_due=later,
                    started_at=later,
                )
    assert app.snapshots.current(key).counts.members == 0


def test_two_runs_that_read_retired_in_the_file_are_no_trouble(shop: Shop) -> None:
    """Both have seen that it is not closed yet."""
    app = shop.app()
    capture(app, NOON)
    configured = app.audiences[AudienceKey("vip")]
    outcomes = [app.retire_by_file(configured).outcome for _ in range(2)]
    assert outcomes == ["retired", "retired"]
    assert column(app.database, "SELECT state FROM snapshot ORDER BY id") == ["current"] * 2
    assert column(app.database, "SELECT kind FROM run ORDER BY id") == ["capture", "retire"]


def test_a_place_that_comes_back_is_told_what_it_missed(shop: Shop) -> None:
    app = shop.app()
    capture(app, NOON)
    deliver(app)
    shop.app("typo.ndjson").close()
    shop.write("vip", ["u1"])
    back = shop.app()
    capture(back, NOON + timedelta(hours=3))
    assert deliver(back) == ["vip completed 1"]
    assert '"vip":false' in (shop.folder / "calls.ndjson").read_text().splitlines()[-1]


def test_a_process_of_before_the_edit_tells_nothing_in_the_name_of_the_new_place(
    shop: Shop,
) -> None:
    old = shop.app()
    capture(old, NOON)
    new = shop.app("new.ndjson")
    with pytest.raises(LeaseLost, match="is at another place now"):
        deliver(old)
    assert deliver(new) == ["vip completed 2"]
    assert (shop.lines(), shop.lines("new.ndjson")) == (0, 2)
    with new.database.read() as connection:
        names = connection.scalars(destination.select().with_only_columns(destination.c.name)).all()
    assert len(names) == 2


def test_diff_knows_that_a_moved_destination_was_told_nothing(shop: Shop) -> None:
    app = shop.app()
    capture(app, NOON)
    deliver(app)
    (shop.folder / "config.toml").write_text(CONFIG.format(path="new.ndjson"))
    moved = build(load([shop.folder / "config.toml"], {}), writes=False)
    configured = moved.audiences[AudienceKey("vip")]
    with (
        examine(
            configured.audience,
            source=configured.source,
            engine=moved.engine,
            snapshots=moved.snapshots,
            limits=configured.limits,
            cycle_time=NOON,
        ) as examined,
        closing(Counting(moved)) as counting,
    ):
        (forecast,) = forecasts(moved, examined, counting)
    assert (forecast.lane, forecast.calls) == ("initial", 2)


def test_another_spelling_of_the_path_is_the_same_place(shop: Shop, tmp_path: Path) -> None:
    app = shop.app()
    capture(app, NOON)
    deliver(app)
    link = tmp_path / "link"
    link.symlink_to(shop.folder)
    same = build(load([link / "config.toml"], {}), writes=True)
    assert deliver(same) == []


def test_changes_that_cannot_be_read_are_a_failure_and_the_others_are_told(shop: Shop) -> None:
    app = shop.app()
    for key in ("vip", "old"):
        capture(app, NOON, key)
    deliver(app)
    shop.write("vip", ["u1"])
    shop.write("old", ["o1", "o2"])
    for key in ("vip", "old"):
        capture(app, NOON + timedelta(hours=3), key)
    with app.database.write() as connection:
        vip = connection.scalar(audience.select().where(audience.c.key == "vip"))
        mine = snapshot.select().with_only_columns(snapshot.c.id)
        ids = connection.scalars(mine.where(snapshot.c.audience_id == vip)).all()
        damage = update(chunk).where(chunk.c.snapshot_id.in_(ids))
        connection.execute(damage.values(payload=b"damaged"))
    assert deliver(app) == ["vip failed 0", "old completed 1"]
    runs = column(app.database, "SELECT outcome FROM run WHERE kind = 'delivery' ORDER BY id")
    assert runs[-1] == "failed"
    assert '"userId":"o2"' in (shop.folder / "calls.ndjson").read_text().splitlines()[-1]
