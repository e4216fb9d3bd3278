"""Large audiences are told after small ones, not together with them: foreseen and sent at Crisp."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from audience_sync.app import App
from audience_sync.bootstrap import build
from audience_sync.cli.counting import Counting
from audience_sync.cli.forecast import LaneForecast, forecasts, in_all
from audience_sync.config.load import load
from audience_sync.domain.audience import AudienceKey
from audience_sync.domain.requests import Requests, exactly
from audience_sync.pipeline import send, turns
from audience_sync.pipeline.capture import examine
from audience_sync.pipeline.delivered import Delivered
from audience_sync.sandbox.options import WEBSITE
from tests.fakes.crisp import Crisp, crisp_sandbox, told
from tests.integration.test_crisp_forecast import AUDIENCES, Member, Shop, shop

NOON = datetime(2026, 10, 7, 12, tzinfo=UTC)
KEYS = ("vip", "winback", "lapsed", "trial")
CONFIG = """
[store]
url = "sqlite:///state.db"
[guard]
floor = 10000
[sources.files]
type = "files"
root = "."
[destinations.crisp]
type = "crisp"
api_key = "sandbox:sandbox-key"
endpoint = "{base}"
website_id = "{website}"
rate = "1000/s"
{more}
"""
AUDIENCE = """
[[audiences]]
name = "{key}"
source = "files"
query = "SELECT * FROM '{key}.csv'"
destinations = ["crisp"]
"""


@dataclass
class Shopping:
    """A folder with files, and a Crisp that is told."""

    folder: Path
    crisp: Crisp
    time: datetime = NOON

    def app(self, more: str = "", keys: Sequence[str] = KEYS) -> App:
        text = CONFIG.format(base=self.crisp.base, website=WEBSITE, more=more)
        text += "".join(AUDIENCE.format(key=key) for key in keys)
        (self.folder / "config.toml").write_text(text)
        return build(load([self.folder / "config.toml"], {}), writes=True)

    def members(self, rows: Mapping[str, Mapping[str, str]]) -> None:
        """``rows``: by audience, the name of each member."""
        for key in KEYS:
            lines = [f"{u},{u}@example.com,{name}" for u, name in rows.get(key, {}).items()]
            text = "\n".join(["user_id,email,name", *lines]) + "\n"
            (self.folder / f"{key}.csv").write_text(text)

    def foreseen(self, app: App) -> list[LaneForecast]:
        """As ``diff`` does it."""
        with closing(Counting(app)) as counting:
            for configured in app.audiences.values():
                with examine(
                    configured.audience,
                    source=configured.source,
                    engine=app.engine,
                    snapshots=app.snapshots,
                    limits=configured.limits,
                    cycle_time=self.time,
                ) as examined:
                    forecasts(app, examined, counting)
            return list(in_all(app, counting))

    def sent(self, app: App) -> tuple[int, list[Delivered]]:
        """How many requests a run takes, and what became of each audience."""
        before = self.requests()
        for configured in app.audiences.values():
            app.captures().capture(configured, self.time)
        done = list(app.deliveries(lambda _span: None).deliver(threading.Event()))
        self.time += timedelta(days=1)
        return self.requests() - before, done

    def requests(self) -> int:
        return int(self.crisp.get("counts.json")["requests"])


@pytest.fixture
def shopping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shopping]:
    """Nobody is to wait for anybody: what is much larger is always walked apart. And no quota is
    used on two days, as it would be at midnight."""
    for module in ("app", "bootstrap"):
        monkeypatch.setattr(f"audience_sync.{module}.now", lambda: NOON)
    monkeypatch.setattr(send.Sending, "_sleep", lambda *_: None)
    monkeypatch.setattr(turns, "LONG", timedelta(0))
    with crisp_sandbox() as crisp:
        yield Shopping(folder=tmp_path, crisp=crisp)


def users(first: int, last: int, name: str = "Ana") -> dict[str, str]:
    return {f"u{n:04}": name for n in range(first, last)}


def test_a_large_audience_is_left_out_and_the_forecast_says_what_that_takes(
    shopping: Shopping,
) -> None:
    app = shopping.app()
    shopping.members({"trial": users(0, 150)})
    shopping.sent(app)
    shopping.members({"trial": users(0, 150), "vip": {}, "winback": {}, "lapsed": {}})
    shopping.sent(app)
    changed = {"vip": users(0, 130), "winback": users(5, 10), "lapsed": users(3, 7)}
    shopping.members({"trial": users(0, 150)} | changed)
    (lane,) = shopping.foreseen(app)
    took, done = shopping.sent(app)
    assert [str(one.span.audience) for one in done] == ["lapsed", "winback", "vip"]
    assert lane.requests_at_least == lane.requests == took == 7 + 130
    assert lane.saved == sum(one.saved for one in done) == 2
    app.close()


@pytest.mark.parametrize("more", ["", "bulk = true"])
@pytest.mark.parametrize("seed", range(4))
def test_any_days(shopping: Shopping, seed: int, more: str) -> None:
    """Profiles that change, too; and people of whom Crisp has some."""
    draw = random.Random(seed)
    app = shopping.app(more)
    for number in draw.sample(range(120), 40):
        shopping.crisp.add(f"u{number:04}@example.com")
    inside: dict[str, set[str]] = {key: set() for key in KEYS}
    names = users(0, 120)
    for _ in range(5):
        for key in KEYS:
            many = draw.choice([0, 2, 5, 100])
            inside[key].symmetric_difference_update(draw.sample(sorted(names), many))
        for user in draw.sample(sorted(names), 10):
            names[user] = draw.choice(["Ana", "Bea", "Cleo"])
        shopping.members({key: {u: names[u] for u in sorted(of)} for key, of in inside.items()})
        lanes = shopping.foreseen(app)
        took, done = shopping.sent(app)
        app.close()
        app = shopping.app(more)  # as each run looks closely at its first requests for many
        if sum(one.accepted > 0 for one in done) < 2:
            continue  # of one alone nothing is foreseen in all
        bulk = "_with_bulk" if more else ""
        least = sum(getattr(lane, f"requests{bulk}_at_least") for lane in lanes)
        assert least <= took <= sum(getattr(lane, f"requests{bulk}") for lane in lanes)
    app.close()


@pytest.mark.parametrize("more", ["", "bulk = true"])
@pytest.mark.parametrize("unfinished", ["initial", "incremental"])
def test_what_waits_for_the_end_of_a_delivery_is_told_and_foreseen_with_all(
    shopping: Shopping, unfinished: str, more: str
) -> None:
    app = shopping.app(more, KEYS if unfinished == "incremental" else ["lapsed"])
    shopping.members({"lapsed": users(0, 150)})
    shopping.sent(app)
    app.close()
    quota = f'quota = "{shopping.requests() + 30}/day"\nreserve = "1%"'
    app = shopping.app(f"{more}\n{quota}", ["lapsed", "vip"])
    shopping.members({"lapsed": users(0, 150), "vip": users(20, 110, "Bea")})
    took, done = shopping.sent(app)
    assert 0 < took <= 30
    ends = [(one.span.lane, one.outcome) for one in done if one.span.audience == "vip"]
    assert ends == [(unfinished, "quota used")]
    app.close()
    app = shopping.app(more, ["lapsed", "vip"])
    vip = users(15, 105, "Bea") | users(30, 33, "Cleo")
    shopping.members({"lapsed": users(0, 147), "vip": vip})
    lanes = shopping.foreseen(app)
    took, done = shopping.sent(app)
    assert [one.outcome for one in done] == ["completed"] * 3
    steps = dict.fromkeys([("incremental", False), (unfinished, False), ("incremental", True)])
    assert [(lane.lane, lane.later) for lane in lanes] == list(steps)
    bulk = "_with_bulk" if more else ""
    least = [getattr(lane, f"requests{bulk}_at_least") for lane in lanes]
    assert least == [getattr(lane, f"requests{bulk}") for lane in lanes]
    assert took == sum(least)
    assert shopping.sent(app)[0] == 0
    app.close()


def parts(members: list[Member], made: Shop) -> tuple[list[Member], list[Member]]:
    """What one audience tells, and what the others tell."""
    first = AudienceKey(made.draw.choice(AUDIENCES))
    one = [[t for t in member if t.context.audience == first] for member in members]
    others = [[t for t in member if t.context.audience != first] for member in members]
    return [m for m in one if m], [m for m in others if m]


@pytest.mark.parametrize("with_track", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_two_walks_take_what_was_foreseen_of_both(seed: int, with_track: bool) -> None:
    with crisp_sandbox() as crisp:
        made = shop(crisp, seed, with_track=with_track)
        for number in made.draw.sample(range(12), 4):
            crisp.add(f"u{number:03}@example.com")
        for _ in range(6):
            first, second = parts(made.day(), made)
            foreseen: Requests = made.teller.to.count().of(first, second)
            took = made.send(first) + made.send(second)
            assert foreseen.one_by_one.least <= took <= foreseen.one_by_one.most
            if foreseen.one_by_one.is_exact:
                assert took == foreseen.one_by_one.most


def test_who_is_met_in_the_first_walk_is_known_in_the_second() -> None:
    with crisp_sandbox() as crisp:
        made = shop(crisp, 0)
        row = {"email": "ana@example.com", "name": "Ana"}
        made.send([[told("ana", row)]])
        at = made.at + timedelta(days=1)
        new = row | {"name": "Anna"}
        walks = [[[told("ana", new, key=key, at=at)]] for key in ("lapsed", "trial")]
        foreseen = made.teller.to.count().of(*walks)
        assert foreseen.one_by_one == exactly(2 + 1), "the name is told once"
        assert sum(made.send(walk) for walk in walks) == 3
