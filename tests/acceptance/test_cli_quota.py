"""Daily quotas and the split of the rate, with real runs against a local tracking API."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from audience_sync.domain.quota import SAVED_UP
from tests.acceptance.daemon import running
from tests.acceptance.program import (
    LONGEST,
    NEW_STORE,
    Done,
    Program,
    people,
    segment,
    told,
    wait_until,
)
from tests.fakes.tracking_api import Served, serve

KEY = "Wk7acceptance0001"
MORNING = datetime(2026, 11, 26, 6, 0, tzinfo=UTC)
DAY = timedelta(days=1)
QUOTA = 'quota = "50/day"\nbatch = 7\nconcurrency = 3'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    log = tmp_path_factory.mktemp("server") / "log"
    with serve(log=log, write_key=KEY) as served:
        yield served


class Days:
    """The program, whose clock shows the day that a test says."""

    def __init__(self, folder: Path, server: Served) -> None:
        self.program = Program(folder=folder, variables={"WRITE_KEY": KEY}).by_clock(MORNING)
        self.server = server
        self.number = 0

    def configure(self, *audiences: str) -> None:
        """Both lanes have work when one is told already and another is new."""
        place = segment("cdp", self.server.endpoint, QUOTA)
        self.program.configure({key: ["cdp"] for key in audiences}, destinations=place)

    def run(self, *arguments: str) -> Done:
        return self.program.by_clock(MORNING + self.number * DAY).run(*arguments)

    def deliveries(self) -> dict[str, dict[str, Any]]:
        done = self.run("sync", "--all", "--json")
        assert done.code == 0, done
        assert done.err in ("", NEW_STORE)
        return {delivery["lane"]: delivery for delivery in done.json()["deliveries"]}

    def calls(self) -> list[dict[str, Any]]:
        return bodies(self.server)


def bodies(server: Served) -> list[dict[str, Any]]:
    """Accepted calls, repeats included."""
    return [{**call["body"], "messageId": call["messageId"]} for call in server.calls()]


@pytest.fixture
def days(tmp_path: Path, server: Served) -> Days:
    server.log.write_bytes(b"")
    made = Days(tmp_path, server)
    made.program.members("vip", range(5))
    made.program.members("new", range(1000, 1130))
    made.configure("vip")
    return made


def test_day_after_day_until_all_are_told(days: Days) -> None:
    days.deliveries()
    assert len(days.calls()) == 5
    by_day: Counter[int] = Counter()
    days.configure("vip", "new")
    vip = 5
    for number in range(1, 6):
        days.number, vip = number, vip + 3
        for _ in range(2):  # the second run of a day finds nothing left for the first delivery
            days.program.members("vip", range(vip))
            before = len(days.calls())
            found = days.deliveries()
            by_day[number] += len(days.calls()) - before
            changes = found.get("incremental")
            assert changes is None or changes["outcome"] == "completed", "changes wait"
        assert people(range(vip)) <= told(days.calls()).keys()
    assert by_day == {1: 43, 2: 43, 3: 43, 4: 13, 5: 3}
    told_once = Counter(call["messageId"] for call in days.calls())
    assert set(told_once.values()) == {1}
    assert told(days.calls(), "new").keys() == people(range(1000, 1130))


def test_how_it_reads(days: Days) -> None:
    days.deliveries()
    days.number = 1
    days.configure("vip", "new")
    plan = days.run("diff", "new")
    assert "initial, 130 calls, 19 requests, about 3 days" in plan.out
    done = days.run("sync", "new")
    assert done.code == 0, done
    assert (
        "initial       cdp 40 of 130; quota used, goes on 00:00 UTC, done about 30 Nov" in done.out
    )
    assert done.lines()[-1].startswith("0 delivered, 90 members wait")
    status = days.run("status", "--exit-code")
    assert status.code == 0, "a used-up quota is no trouble"
    assert "cdp 40 of 50 calls today" in status.lines()
    shown = days.run("status", "--json").json()
    assert shown["destinations"] == [
        {
            "name": "cdp",
            "quota": {
                "limit": 50,
                "used": 40,
                "unit": "call",
                "by_lane": {"initial": 40, "incremental": 0},
            },
        }
    ]
    (place,) = next(a for a in shown["audiences"] if a["key"] == "new")["destinations"]
    assert place["state"] == "open"
    assert place["eta"].startswith("2026-11-30T00:00")
    days.program.members("vip", range(10))
    assert "5 calls, 1 request, 10 % of today's quota, about 1 s" in days.run("diff", "vip").out
    delivery = days.deliveries()["initial"]
    assert (delivery["outcome"], delivery["accepted"]) == ("quota used", 0)
    assert delivery["goes_on"] == "2026-11-28T00:00:00Z"
    assert delivery["eta"].startswith("2026-11-30T00:00")
    assert "error" not in delivery


def test_what_was_reserved_before_a_kill_is_used(days: Days) -> None:
    """Killed in the middle of a request, again and again; no day ever has more than its quota."""
    slow = 'quota = "50/day"\nbatch = 7\nconcurrency = 1\n'
    with serve(log=days.program.folder / "slow.log", write_key=KEY, latency=0.3) as server:
        days.program.configure({"vip": ["cdp"]}, destinations=segment("cdp", server.endpoint, slow))
        days.program.members("vip", range(100))
        for kills in range(1, 4):
            process = days.program.start("sync", "--all")
            wait_until(lambda kills=kills: len(server.calls()) >= 7 * kills)  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
            process.communicate()
        found = days.deliveries()["initial"]
        assert found["outcome"] == "quota used"
        assert 7 * 3 <= len(server.calls()) <= 40
        ((reserved,),) = days.program.stored("SELECT sum(reserved) FROM quota")
        assert len(server.calls()) <= reserved <= 40
        while days.deliveries():
            days.number += 1
        assert told(bodies(server)).keys() == people(range(100))


def test_the_daemon_goes_on_at_midnight_by_itself(days: Days) -> None:
    """A clock in the process that nobody waits for but the daemon: it is half a minute before."""
    days.run("sync", "--all")
    days.configure("vip", "new")
    evening = MORNING.replace(hour=23, minute=59, second=30)
    with running(days.program, MOVED_TO=evening.isoformat()) as daemon:
        wait_until(lambda: daemon.ended or len(days.calls()) >= 5 + 35)
        before = daemon.wait_for("delivered", audience="new", outcome="quota used")
        assert len(days.calls()) == 5 + 35, "five were used by the sync of the morning"
        assert before["timestamp"].startswith("2026-11-26T23:59")
        wait_until(lambda: daemon.ended or len(days.calls()) >= 5 + 35 + 40, seconds=90)
        daemon.wait_for("delivered", count=2, audience="new", outcome="quota used")
        assert len(days.calls()) == 5 + 35 + 40
        assert not daemon.said("paused")
        assert daemon.stop() == 0
    days.number = 1
    assert "cdp 40 of 50 calls today" in days.run("status").lines()


def test_both_lanes_in_two_processes_keep_to_the_rate_together(
    tmp_path: Path, server: Served
) -> None:
    """The first had all of the rate when it began. No window of time has more than the rate, but
    for what is saved up when nothing runs for a second, a request of each in flight, and the
    second until the first knows."""
    server.log.write_bytes(b"")
    program = Program(folder=tmp_path, variables={"WRITE_KEY": KEY})
    rate = 'rate = "100/s"\nbatch = 5\nconcurrency = 2\nreserve = "20%"'
    program.configure(
        {"vip": ["cdp"], "new": ["cdp"]},
        destinations=segment("cdp", server.endpoint, rate),
        more='[guard]\nmax_entries = "100000%"\n',
    )
    program.members("vip", range(5))
    assert program.run("sync", "vip").code == 0
    program.members("vip", range(1500))
    program.members("new", range(5000, 5800))
    first = program.start("sync", "vip")
    wait_until(lambda: len(server.calls()) > 20)
    second = program.start("sync", "new")
    out, err = second.communicate(timeout=LONGEST)
    assert second.returncode == 0, (out, err)
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=LONGEST)
    times = sorted(call["time"] for call in server.calls())
    began = next(call["time"] for call in server.calls() if "new" in call["body"]["traits"])
    ended = max(call["time"] for call in server.calls() if "new" in call["body"]["traits"])
    assert ended - began > 3, "too short to see anything"
    settled = [at for at in times if began + 1.5 <= at <= ended]
    window = ended - began - 1.5
    assert len(settled) <= 100 * (window + SAVED_UP) + 2 * 2 * 5
    assert len(told(bodies(server), "new")) == 800
