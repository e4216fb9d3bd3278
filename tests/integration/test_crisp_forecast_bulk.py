"""The forecast of ``bulk`` against what a sandbox was sent, with a real store."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from audience_sync.domain.audience import AudienceKey, ColumnType, Kind
from audience_sync.domain.requests import Requests, exactly
from audience_sync.pipeline import send
from audience_sync.pipeline.bundle import merged
from audience_sync.pipeline.ports.sending import SpanContext
from audience_sync.sandbox.existing import Existing
from audience_sync.store import migrate
from audience_sync.store.contacts import Contacts
from audience_sync.store.engine import Database
from audience_sync.store.spans import Spans
from tests.fakes.crisp import crisp_sandbox, destination
from tests.fakes.crisp_station import CrispStation
from tests.fakes.snapshot_log import EMAIL

CITY = EMAIL | {"city": ColumnType.STRING}
CITIES = ["Nantes", "Lyon", "Brest", "Lille"]


@pytest.fixture
def station(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CrispStation]:
    monkeypatch.setattr(send.Sending, "_sleep", lambda *_: None)
    database = Database(f"sqlite:///{tmp_path / 'state.db'}")
    migrate.upgrade(database)
    card = {"person": {"nickname": "Somebody"}}
    people = [Existing(email=f"u{n:05}@example.com", card=card, data={}) for n in range(700)]
    with crisp_sandbox(people) as crisp:
        yield CrispStation(database=database, crisp=crisp)
    database.close()


def foreseen(station: CrispStation, keys: list[str]) -> Requests:
    """Of the spans that the next run opens."""
    spans = Spans(station.database, station.clock)
    to = destination(
        station.crisp, Contacts(station.database, "crisp"), clock=station.clock, bulk=True
    )
    waiting = spans.waiting("crisp", [AudienceKey(key) for key in keys])
    changes = [spans.net(w.audience, w.told_seq or 0, w.to_seq) for w in waiting]  # type: ignore[arg-type]
    contexts = [
        SpanContext(
            audience=w.audience,
            kind=Kind.AUDIENCE,
            span_number=0,
            timestamp=station.clock(),
            installation="installation",
            members_left=0 if w.told_seq else w.members,
        )
        for w in waiting
    ]
    return to.count().of(member.told for member in merged(changes, contexts))


def sent(station: CrispStation) -> int:
    before = int(station.crisp.get("counts.json")["requests"])
    station.run()
    return int(station.crisp.get("counts.json")["requests"]) - before


@pytest.mark.parametrize("seed", range(2))
def test_a_run_takes_what_was_foreseen(station: CrispStation, seed: int) -> None:
    draw = random.Random(seed)
    users = [f"u{number:05}" for number in range(700)]
    living = {user: draw.choice(CITIES) for user in users}
    inside = {"vip": {*users}, "winback": {*draw.sample(users, 300)}}
    for day in range(3):
        for key, members in inside.items():
            if day:
                members.symmetric_difference_update(draw.sample(users, 60))
            for user in draw.sample(users, 20 if day else 0):
                living[user] = draw.choice(CITIES)
            rows = {u: {"email": f"{u}@example.com", "city": living[u]} for u in sorted(members)}
            station.log(key, CITY).put(rows)
        requests = foreseen(station, [*inside])
        expected = requests.with_bulk
        took = sent(station)
        assert expected.least <= took <= expected.most
        if day:
            assert expected == exactly(took), "all are known by then"
            assert took < requests.one_by_one.least
