"""``history`` and ``explain``: what happened, to an audience and to a user."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from tests.acceptance.program import Done, Program

DAYS = [(datetime.now(UTC) - timedelta(days=n)).date().isoformat() for n in (5, 4, 3, 2, 1)]
"""Within ``keep``."""
HUGE = "x" * 40_000
"""More than one call can carry."""


def place(name: str) -> str:
    return f'[destinations.{name}]\ntype = "ndjson"\npath = "{name}/calls.ndjson"\n'


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Five days of ``vip``: made, changed, held and approved, failed, changed where one is down."""
    made = Program(folder=tmp_path_factory.mktemp("history"))
    audiences = {"vip": ["calls", "other"], "plain": ["calls"]}
    made.configure(audiences, destinations=place("calls") + place("other"))
    for name in ("calls", "other"):
        (made.folder / name).mkdir()
    made.members("plain", range(3))
    made.members("vip", range(30))
    with (made.folder / "vip.csv").open("a") as file:
        file.write(f"person-9999,{HUGE}\n")
    assert made.run("sync", "--now", DAYS[0]).code == 0
    made.members("vip", range(2, 32))
    assert made.run("sync", "vip", "--now", DAYS[1]).code == 0
    made.members("vip", range(32))
    path = made.folder / "config.toml"
    path.write_text(
        path.read_text().replace("'vip.csv'", "'vip.csv' WHERE user_id < 'person-0002'")
    )
    assert made.run("sync", "vip", "--now", DAYS[2]).code == 3
    plan = made.run("status", "--json").json()["audiences"][0]["held"]["id"]
    approved = made.run("approve", plan, "--yes", "--reason", "spring cleaning")
    assert approved.code == 0
    (made.folder / "vip.csv").rename(made.folder / "away.csv")
    assert made.run("sync", "vip", "--now", DAYS[3]).code == 65
    (made.folder / "away.csv").rename(made.folder / "vip.csv")
    (made.folder / "other").rename(made.folder / "away")
    made.members("vip", [1, 2])
    assert made.run("sync", "vip", "--now", DAYS[4]).code == 69
    return made


def without_members(done: Done) -> Done:
    assert "person-" not in done.out + done.err
    assert "private.example" not in done.out + done.err
    return done


def table(done: Done, head: str) -> list[list[str]]:
    """The rows under a heading, cells apart by two spaces."""
    lines = done.lines()
    start = next(i for i, line in enumerate(lines) if line.startswith(head))
    rows = []
    for line in lines[start + 1 :]:
        if not line:
            break
        rows.append(re.split(r"\s{2,}", line))
    return rows


class TestHistory:
    def test_text(self, program: Program) -> None:
        done = without_members(program.run("history", "vip"))
        assert (done.code, done.err) == (0, "")
        assert done.lines()[0] == "vip         1 member"
        assert re.fullmatch(r"sizes +█▇▁▁", done.lines()[1])
        assert re.fullmatch(r" +1 to 31 in 4 snapshots since .+ UTC", done.lines()[2])

    def test_snapshots_with_definition_and_approval(self, program: Program) -> None:
        rows = table(program.run("history", "vip"), "SNAPSHOT")
        assert [row[0] for row in rows] == ["#4", "#3", "#2", "#1"]
        assert [row[2:4] for row in rows] == [
            ["1", "+0 −1"],
            ["2", "+2 −30"],
            ["30", "+2 −3"],
            ["31", "+31 −0"],
        ]
        assert re.fullmatch(r"\w{4}, was \w{4}", rows[1][4])
        assert re.fullmatch(r"approved by \S+@\S+: spring cleaning", rows[1][5])
        assert [len(row) for row in rows] == [5, 6, 5, 5]

    def test_runs_orders_and_deliveries(self, program: Program) -> None:
        done = program.run("history", "vip")
        runs = table(done, "RUN")
        assert [row[1:3] for row in runs] == [
            ["delivery to other", "failed"],
            ["capture", "failed"],
            ["capture", "held"],
        ]
        assert "no such file" in runs[1][3]
        assert "would leave" in runs[2][3]
        (order,) = table(done, "ORDER")
        assert order[2:] == ["approved", "spring cleaning"]
        deliveries = [row[1:] for row in table(done, "DELIVERY") if row[1] == "calls"]
        assert deliveries == [
            ["calls", "incremental", "#3 → #4", "1 accepted"],
            ["calls", "incremental", "#2 → #3", "32 accepted"],
            ["calls", "incremental", "#1 → #2", "4 accepted, 1 rejected"],
            ["calls", "initial", "#0 → #1", "30 accepted, 1 rejected"],
        ]
        waiting = next(row for row in table(done, "DELIVERY") if row[1] == "other")
        assert waiting[4].endswith("open: 1 of 1 wait")

    def test_json(self, program: Program) -> None:
        shown = without_members(program.run("history", "vip", "--json", "--limit", "2")).json()
        assert (shown["audience"], shown["configured"], shown["members"]) == ("vip", True, 1)
        assert [s["seq"] for s in shown["snapshots"]] == [4, 3]
        approval = shown["snapshots"][1]["approval"]
        assert (approval["outcome"], approval["reason"]) == ("approved", "spring cleaning")
        assert shown["snapshots"][1]["definition_before"] != shown["snapshots"][1]["definition"]
        assert [r["outcome"] for r in shown["runs"]] == ["failed", "failed"]
        assert [o["kind"] for o in shown["orders"]] == ["approve"]
        assert {d["destination"] for d in shown["deliveries"]} == {"calls", "other"}
        assert "position" not in shown["deliveries"][0], "it is somebody's id"

    def test_a_limit_says_that_there_is_more(self, program: Program) -> None:
        done = program.run("history", "vip", "--limit", "2")
        assert "  the newest 2; --limit 0 shows all" in done.lines()
        assert "#2" not in {row[0] for row in table(done, "SNAPSHOT")}
        assert len(table(program.run("history", "vip", "--limit", "0"), "SNAPSHOT")) == 4

    def test_an_audience_that_is_no_longer_configured(self, program: Program) -> None:
        config = (program.folder / "config.toml").read_text()
        only = program.folder / "only.toml"
        only.write_text(config.partition('[[audiences]]\nname = "plain"')[0])
        done = program.run("--config", "only.toml", "history", "plain")
        assert done.lines()[0] == "plain       3 members   no longer configured"
        unknown = program.run("history", "nobody")
        assert (unknown.code, unknown.out) == (2, "")
        assert "no audience nobody" in unknown.err
        assert program.run("history", "*").code == 2


def explained(program: Program, user: str) -> dict[str, list[str]]:
    """By audience, the lines about it."""
    done = program.run("explain", user)
    assert (done.code, done.err) == (0, ""), done
    parts: dict[str, list[str]] = {}
    for line in done.lines()[1:]:
        if not line.startswith((" ", "!")):
            parts[line.split()[0]] = lines = [line]
        else:
            lines.append(line)
    return parts


class TestExplain:
    def test_a_member_now(self, program: Program) -> None:
        found = explained(program, "person-0001")
        assert list(found) == ["plain", "vip"]
        head, carries, calls, other = found["vip"]
        assert re.fullmatch(r"vip +in since .+ UTC \(#3, definition \w{4}\)", head)
        assert carries == '  carries    email "p1@private.example"'
        assert re.fullmatch(r"  calls +told true .+ UTC", calls)
        assert re.fullmatch(r"  other +told true .+ UTC", other)

    def test_one_who_left_and_a_place_that_does_not_know_yet(self, program: Program) -> None:
        head, carried, calls, other = explained(program, "P0@PRIVATE.example")["vip"]
        assert re.fullmatch(r"vip +left .+ UTC \(#4, definition \w{4}\)", head)
        assert carried == '  carried    email "p0@private.example"'
        assert re.fullmatch(r"  calls +told false .+ UTC", calls)
        being_told = r"being told false \(incremental, 0 of 1, position not there yet\)"
        assert re.fullmatch(rf"  other +{being_told}; told true .+ UTC; paused: .+", other)

    def test_one_who_was_rejected_comes_first(self, program: Program) -> None:
        _, _, calls, other = explained(program, "person-9999")["vip"]
        for line in (calls, other):
            assert re.match(r"! \w+ +rejected .+ UTC: an Identify call of 40,\d+ bytes", line)
            assert "told" not in line
        path = program.folder / "plain.csv"
        path.write_text("user_id,email\nperson-0000,\nperson-0001,\nperson-9999,\n")
        assert program.run("sync", "plain", "--now", DAYS[2]).code == 0
        assert list(explained(program, "person-9999")) == ["vip", "plain"]

    def test_json(self, program: Program) -> None:
        (user,) = program.run("explain", "person-0031", "--json").json()["users"]
        (vip,) = user["audiences"]
        assert (vip["audience"], vip["member"], vip["until"]["seq"]) == ("vip", False, 3)
        assert vip["columns"] == {"email": "p31@private.example"}
        assert [(c["seq"], c["change"]) for c in vip["changes"]] == [(3, "exited"), (2, "entered")]
        told = {place["name"]: place["told"]["value"] for place in vip["destinations"]}
        assert told == {"calls": False, "other": False}

    def test_somebody_unknown(self, program: Program) -> None:
        done = program.run("explain", "person-0001", "nobody@example.com", "--json")
        assert done.code == 2
        assert [user["user_id"] for user in json.loads(done.out)["users"]] == ["person-0001"]
        assert done.err == "audience-sync: no user nobody@example.com in anything that is kept\n"
        assert program.run("explain").code == 2

    def test_somebody_who_was_forgotten(self, program: Program) -> None:
        assert program.run("forget", "person-0029", "--yes").code == 0
        done = program.run("explain", "person-0029")
        assert (done.code, done.out) == (2, "")
        assert done.err.endswith("  asked to be forgotten: person-0029\n")

    def test_several_have_the_same_email(self, program: Program) -> None:
        (program.folder / "plain.csv").write_text(
            "user_id,email\na,twin@private.example\nb,Twin@Private.example\n"
        )
        assert program.run("sync", "plain", "--now", DAYS[3]).code == 0
        done = program.run("explain", "twin@private.example")
        assert [line for line in done.lines() if line in ("a", "b")] == ["a", "b"]


def test_looking_writes_nothing(program: Program) -> None:
    before = program.files()
    for arguments in (["history", "vip"], ["explain", "person-0001"], ["export", "vip"]):
        assert program.run(*arguments).code == 0
    assert {n: c for n, c in program.files().items() if not n.startswith("state.db-")} == {
        n: c for n, c in before.items() if not n.startswith("state.db-")
    }
