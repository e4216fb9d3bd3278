"""``bulk`` through random days: whatever happens, every profile is true at the end (P2, P3, P6)."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest

from audience_sync.destinations import crisp_sharing
from audience_sync.destinations.transport import Reply, Transport
from audience_sync.domain.audience import ColumnType, Kind, Row
from audience_sync.errors import RetryLater, StoreFailed
from audience_sync.pipeline import batches, send
from audience_sync.pipeline.allowance import Taken
from audience_sync.sandbox.existing import Existing
from audience_sync.store.engine import Database
from audience_sync.store.spans import Spans
from tests.fakes.crisp import crisp_sandbox
from tests.fakes.crisp_station import CrispStation
from tests.fakes.snapshot_log import EMAIL, Log, scalar

USERS = [f"u{number:03}" for number in range(90)]
CITIES = ["Nantes", "Lyon", "Brest"]
VIP = EMAIL | {"city": ColumnType.STRING, "name": ColumnType.STRING}


class World:
    """Faults of the wire and of the store, as long as it is not quiet."""

    def __init__(self, seed: int, patch: pytest.MonkeyPatch) -> None:
        self.draw = random.Random(seed)
        self.wire = random.Random(seed + 1000)  # drawn from by the workers, in any order
        self.is_quiet = False
        self.commits = 10**6
        request, advance = Transport.request, Spans.advance

        def asked(transport: Transport, *what: Any, **named: Any) -> Reply:
            chance = 1.0 if self.is_quiet else self.wire.random()
            if chance < 0.02:
                raise RetryLater("lost on the way", unsent=chance < 0.01)
            reply = request(transport, *what, **named)
            if chance < 0.05:
                raise RetryLater("the answer was lost")
            if chance < 0.07:
                raise RetryLater("too many requests", after=0.001, slow_down=True)
            return reply

        def advanced(*what: Any, **named: Any) -> Any:
            self.commits -= 1
            if self.commits < 0:
                raise StoreFailed("killed")
            return advance(*what, **named)

        patch.setattr(Transport, "request", asked)
        patch.setattr(Spans, "advance", advanced)
        patch.setattr(batches, "AHEAD", 40)
        patch.setattr(crisp_sharing, "PEOPLE", 10)
        patch.setattr(send.Sending, "_sleep", no_wait)

    def quiet(self) -> None:
        self.is_quiet, self.commits = True, 10**6

    def row(self, user_id: str, **more: Any) -> Row:
        return {"email": f"{user_id}@example.com", **more}

    def change(self, log: Log) -> None:
        before = log.kept[log.seq]
        rows: dict[str, Row] = {}
        for user_id in USERS:
            if self.draw.random() < (0.8 if user_id in before else 0.4):
                rows[user_id] = before.get(user_id) or self.new_row(log, user_id)
            if user_id in rows and self.draw.random() < 0.05:
                rows[user_id] = self.new_row(log, user_id)
        log.put(rows)

    def new_row(self, log: Log, user_id: str) -> Row:
        if log.key == "vip":
            name = self.draw.choice([user_id, "Ann"])
            return self.row(user_id, city=self.draw.choice(CITIES), name=name)
        if log.key == "level":
            return self.row(
                user_id, value=self.draw.choice([1, 1, 1, 1, 2, self.draw.randrange(99)])
            )
        return self.row(user_id)


def no_wait(sending: send.Sending, _seconds: float, _taken: Taken) -> None:
    if sending.stop.is_set():
        raise send.Stopped("stopping")


def expected(log: Log) -> dict[str, Any]:
    """Of everyone who was ever a member."""
    now = log.kept[log.seq]
    nobody: Any = "" if log.kind is Kind.COMPUTED_TRAIT else False
    ever = set().union(*log.kept.values())
    if log.kind is Kind.COMPUTED_TRAIT:
        return {u: now[u]["value"] if u in now else nobody for u in ever}
    return {u: u in now for u in ever}


@pytest.mark.parametrize("seed", range(4))
def test_any_days(database: Database, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    world = World(seed, monkeypatch)
    theirs = [
        Existing(email=f"{u}@example.com", card={"person": {"nickname": u}}, data={"since": 2019})
        for u in USERS[::2]
    ]
    with crisp_sandbox(theirs) as running:
        station = CrispStation(database=database, crisp=running, other={"concurrency": 3})
        logs = [
            station.log("vip", VIP),
            station.log("old"),
            station.log("level", EMAIL | {"value": ColumnType.INT64}, Kind.COMPUTED_TRAIT),
        ]
        for _ in range(8):
            for log in world.draw.sample(logs, world.draw.choice([1, 1, 1, 2, 3])):
                world.change(log)
            for _ in range(world.draw.randint(1, 2)):
                world.commits = world.draw.choice([1, 4, 12, 40, 10**6])
                station.run()
            station.clock.now += timedelta(hours=world.draw.choice([1, 30]))
        world.quiet()
        station.clock.now += timedelta(days=1)
        runs = 0
        while station.run():
            runs += 1
            assert runs < 20, "it comes to no end"
        asked = station.requests()
        found = running.people()
    told_before_they_left(database, logs)
    for log in logs:
        for user_id, value in expected(log).items():
            person = found.get(f"{user_id}@example.com")
            if person is None or str(log.key) not in person["data"]:
                assert value in (False, ""), "only who left before they were ever told"
            else:
                assert person["data"][str(log.key)] == value, (log.key, user_id)
    for user_id, row in logs[0].kept[logs[0].seq].items():
        person = found[f"{user_id}@example.com"]
        assert person["data"]["city"] == row["city"]
        assert person["person"]["nickname"] == row["name"]
    for person in theirs:
        assert found[person.email]["data"]["since"] == 2019, "nothing is removed"
    assert asked["PATCH batch/data 200"] > 10


def told_before_they_left(database: Database, logs: list[Log]) -> None:
    """Nobody is rejected or skipped but who exits and was never met."""
    query = "SELECT count(*) FROM span WHERE total <> accepted + rejected + skipped"
    assert scalar(database, query) == 0
    assert scalar(database, "SELECT sum(rejected) FROM span") == 0
    assert scalar(database, "SELECT count(*) FROM span WHERE state <> 'completed'") == 0
