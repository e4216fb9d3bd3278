"""What ``diff`` foresees at Crisp against what a sandbox is then sent by ``sync``."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from audience_sync.sandbox.options import WEBSITE
from tests.acceptance.program import Program
from tests.fakes.crisp import Crisp, crisp_sandbox

KEYS = ("vip", "winback", "lapsed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shop:
    program: Program
    crisp: Crisp

    def configure(self, more: str = "", keys: Iterable[str] = KEYS) -> None:
        destination = (
            f'[destinations.crisp]\ntype = "crisp"\napi_key = "${{CRISP_KEY}}"\n'
            f'endpoint = "{self.crisp.base}"\nwebsite_id = "{WEBSITE}"\nrate = "1000/s"\n{more}\n'
        )
        audiences = {key: ["crisp"] for key in keys}
        self.program.configure(audiences, destinations=destination, more="[guard]\nfloor = 1000\n")

    def members(self, rows: Mapping[str, Mapping[str, tuple[str, str]]]) -> None:
        for key, members in rows.items():
            lines = [f"{user},{email},{name}" for user, (email, name) in members.items()]
            text = "\n".join(["user_id,email,name", *lines]) + "\n"
            (self.program.folder / f"{key}.csv").write_text(text)

    def diff(self, *arguments: str) -> dict[str, Any]:
        done = self.program.run("diff", "--json", *arguments)
        assert (done.code, done.err) == (0, ""), done
        shown: dict[str, Any] = done.json()
        return shown

    def sync(self) -> tuple[int, int]:
        """How many requests Crisp was sent, and how many the report says were saved."""
        before = self.sent()
        done = self.program.run("sync", "--all", "--json")
        assert done.code == 0, done
        saved = sum(delivery["saved"] for delivery in done.json()["deliveries"])
        return self.sent() - before, saved

    def sent(self) -> int:
        return int(self.crisp.get("counts.json")["requests"])


@pytest.fixture
def shop(tmp_path: Path) -> Iterable[Shop]:
    with crisp_sandbox() as crisp:
        variables = {"CRISP_KEY": "sandbox:sandbox-key"}
        yield Shop(program=Program(folder=tmp_path, variables=variables), crisp=crisp)


def in_all(shown: dict[str, Any]) -> tuple[int, int, int]:
    """At least and at most so many requests, of all lanes, and how many are saved."""
    lanes = shown["in_all"] or [d for a in shown["audiences"] for d in a["destinations"]]
    with_bulk = "_with_bulk" if any(lane["bulk"] for lane in lanes) else ""
    return (
        sum(lane[f"requests{with_bulk}_at_least"] for lane in lanes),
        sum(lane[f"requests{with_bulk}"] for lane in lanes),
        sum(lane.get("saved", 0) for lane in lanes),
    )


@pytest.mark.parametrize(
    ("seed", "more"), [(0, ""), (1, ""), (2, "bulk = true"), (3, "bulk = true")]
)
def test_a_run_takes_what_diff_has_foreseen(shop: Shop, seed: int, more: str) -> None:
    draw = random.Random(seed)
    for number in draw.sample(range(20), 8):
        shop.crisp.add(f"u{number:02}@example.com")
    users = {f"u{n:02}": (f"u{n:02}@example.com" if n % 7 else "", "Ana") for n in range(20)}
    inside = {key: {*draw.sample(sorted(users), 12)} for key in KEYS}
    for day in range(4):
        keys = KEYS[: 2 + (day > 1)]
        shop.configure(more, keys)
        for user, (email, _) in users.items():
            if draw.random() < 0.2:
                users[user] = (email or f"{user}@new.example", draw.choice(["Bea", "Cleo"]))
        for members in inside.values():
            members.symmetric_difference_update(draw.sample(sorted(users), 4 if day else 0))
        shop.members({key: {u: users[u] for u in sorted(who)} for key, who in inside.items()})
        least, most, saved = in_all(shop.diff())
        assert most
        sent, really_saved = shop.sync()
        assert least <= sent <= most
        assert saved == really_saved or (more and saved < really_saved), "bulk saves more"
        if day:
            assert most - least <= 2 * 3, "only of new ones is it unknown whether Crisp has them"


def test_five_changes_of_one_member_are_one_request(shop: Shop) -> None:
    shop.configure()
    ana = {"ana": ("ana@example.com", "Ana")}
    bob = {"bob": ("bob@example.com", "Bob")}
    shop.members({"vip": ana | bob, "winback": bob, "lapsed": bob})
    shop.sync()
    shop.members({"vip": bob, "winback": ana | bob, "lapsed": ana | bob})
    assert in_all(shop.diff()) == (1, 1, 2)
    shown = shop.program.run("diff").out
    assert "1 call, 1 request, under 0.1 % of today's quota, about 1 s" in shown
    assert "crisp       in all 1 request, 2 saved, as members changed in several audiences" in shown
    assert shop.program.run("sync", "--all").lines()[-1].startswith("3 delivered, 2 requests saved")


def test_a_first_delivery_of_several_days_says_what_bulk_would_take(shop: Shop) -> None:
    """Everybody is known at Crisp by another audience, which has used up the quota of the day."""
    noon = datetime(2026, 11, 26, 12, tzinfo=UTC)
    shop = replace(shop, program=shop.program.by_clock(noon))
    shop.configure('quota = "1000/day"', ["vip"])
    shop.members({"vip": {f"u{n:04}": (f"u{n:04}@example.com", "Ana") for n in range(40)}})
    shop.sync()
    shop.configure('quota = "20/day"', ["vip", "winback"])
    shop.members({"winback": {f"u{n:04}": (f"u{n:04}@example.com", "Ana") for n in range(40)}})
    done = shop.program.run("diff", "winback")
    assert done.code == 0, done
    assert done.lines()[1] == "  crisp      one by one 3 days, with bulk 1 day"
    (forecast,) = shop.diff("winback")["audiences"][0]["destinations"]
    assert (forecast["requests"], forecast["requests_with_bulk"]) == (40, 4)
    assert (forecast["days"], forecast["days_with_bulk"]) == (3, 1)


def test_who_has_no_email_is_said_to_wait_and_counts_when_there_is_one(shop: Shop) -> None:
    shop.configure(keys=["vip"])
    shop.members({"vip": {"ana": ("", "Ana")}})
    shown = shop.program.run("diff").out
    assert "1 call, 0 requests" in shown
    assert "1 member without an e-mail cannot be told yet" in shown
    assert shop.sync() == (0, 0)
    shop.members({"vip": {"ana": ("ana@example.com", "Ana")}})
    (forecast,) = shop.diff()["audiences"][0]["destinations"]
    assert (forecast["calls"], forecast["requests_at_least"]) == (1, 2)
    assert shop.sync() == (2, 0)


@pytest.mark.parametrize("more", ["", "bulk = true"])
def test_a_resync_that_waits_is_counted_whole(shop: Shop, more: str) -> None:
    """With what else the same walk tells, and the requests that are saved by that."""
    shop.configure(more, ["vip", "winback"])
    everybody = {f"u{n:02}": (f"u{n:02}@example.com" if n else "", "Ana") for n in range(20)}
    some = {u: row for u, row in everybody.items() if u < "u15"}
    shop.members({"vip": everybody, "winback": some})
    shop.sync()
    assert shop.program.run("resync", "vip", "winback", "--yes").code == 0
    fewer = {u: row for u, row in everybody.items() if u > "u03"}
    shop.members({"vip": fewer, "winback": some})
    shown = shop.diff()
    places = {a["audience"]: a["destinations"][0] for a in shown["audiences"]}
    assert all(place["resync"] for place in places.values())
    assert (places["vip"]["calls"], places["winback"]["calls"]) == (20, 15)
    assert (places["vip"]["lane"], places["vip"]["skipped"]) == ("initial", 1)
    least, most, saved = in_all(shown)
    sent, really_saved = shop.sync()
    assert (least, most) == (sent, sent)
    assert saved == really_saved or (more and really_saved > saved), "bulk has saved some too"
    assert in_all(shop.diff())[1] == 0
