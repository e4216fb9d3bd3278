"""``diff`` between kept snapshots, and as Markdown."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from tests.acceptance.program import Program

DAYS = [(datetime.now(UTC) - timedelta(days=n)).date().isoformat() for n in (4, 3, 2, 1)]
"""Within ``keep``."""
MEMBERS = [range(20), range(2, 21), range(21)]
PLAN = re.compile(r"\d{8}T\d{4}Z-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Three snapshots; who left with the second came back with the third."""
    made = Program(folder=tmp_path_factory.mktemp("kept"))
    made.configure({"vip": ["calls"], "b": ["calls"]})
    made.members("b", range(2))
    for day, numbers in zip(DAYS, MEMBERS, strict=False):
        made.members("vip", numbers)
        assert made.run("sync", "--now", day).code == 0
    (made.folder / "vip.csv").unlink()
    return made


def test_between_two_snapshots_no_source_is_read(program: Program) -> None:
    before = program.files()
    done = program.run("diff", "vip", "--from", "1", "--to", "2", "--members", "9")
    assert (done.code, done.err) == (0, "")
    assert [line.split() for line in done.lines()] == [
        ["vip", "#1", "→", "#2", "20", "→", "19", "+1", "−2"],
        ["exited", "person-0000"],
        ["exited", "person-0001"],
        ["entered", "person-0020"],
    ]
    without = program.run("diff", "vip", "--from", "1", "--to", "2")
    assert without.lines() == done.lines()[:1], "members only where they are asked for"
    assert {n: c for n, c in program.files().items() if "state.db-" not in n} == before


def test_backwards_and_to_the_newest(program: Program) -> None:
    back = program.run("diff", "vip", "--from", "2", "--to", "1", "--format", "ndjson")
    assert [json.loads(line)["change"] for line in back.lines()] == ["entered", "entered", "exited"]
    newest = program.run("diff", "vip", "--from", "1", "--json").json()["audiences"]
    assert newest == [
        {
            "audience": "vip",
            "name": "vip",
            "from_seq": 1,
            "to_seq": 3,
            "members": 21,
            "previous": 20,
            "entered": 1,
            "exited": 0,
            "updated": 0,
        }
    ], "who came back is no change"


def test_csv_from_nobody(program: Program) -> None:
    done = program.run("diff", "vip", "--from", "0", "--to", "2", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["user_id"] for row in rows] == [f"person-{n:04}" for n in MEMBERS[1]]
    assert {(row["change"], row["before"]) for row in rows} == {("entered", "")}
    assert json.loads(rows[0]["after"]) == {"email": "p2@private.example"}


def test_the_exit_code_says_whether_anything_changed(program: Program) -> None:
    assert program.run("diff", "vip", "--from", "1", "--to", "2", "--exit-code").code == 4
    assert program.run("diff", "vip", "--from", "2", "--to", "2", "--exit-code").code == 0
    assert program.run("diff", "*", "--from", "0", "--to", "1", "--exit-code").code == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["vip", "--from", "1", "--to", "7"], "no snapshot 7 of vip is kept\n  kept are 1 to 3"),
        (["--from", "1"], "--from needs an audience"),
        (["vip", "--to", "1"], "--to needs --from"),
        (["vip", "--from", "1", "--now", "2026-03-01"], "--now means nothing"),
        (["nobody", "--from", "1"], "no audience nobody"),
        (["vip", "--from", "-1"], "-1 is not in the range"),
    ],
)
def test_what_cannot_be_meant_is_said(program: Program, arguments: list[str], said: str) -> None:
    done = program.run("diff", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_markdown_between_snapshots(program: Program) -> None:
    done = program.run("diff", "vip", "--from", "1", "--to", "2", "--format", "markdown")
    assert done.out == (
        "### vip\n\n| | |\n|---|---|\n| snapshots | 1 → 2 |\n| members | 20 → 19 |\n"
        "| changes | +1 −2 |\n\n"
    )


def test_markdown_of_the_next_run(program: Program) -> None:
    """A table for each audience with its plan; what failed is said; no member unless asked for."""
    program.members("b", range(1, 14))
    done = program.run("diff", "--format", "markdown", "--now", DAYS[3])
    assert done.code == 65
    assert "person-" not in done.out
    failed, worked = done.out.split("\n\n| | |\n")[1:]
    assert failed.startswith("|---|---|\n| **failed** | vip.csv: no such file under ")
    rows = dict(re.findall(r"^\| (\w+) \| (.*) \|$", worked, re.MULTILINE))
    assert rows["members"] == "2 → 13"
    assert rows["changes"] == "+12 −1"
    assert rows["calls"] == "13 calls, 1 request, about 1 s"
    assert rows["guard"] == "ok (exits 50 %, limit 20 %)"
    (plan,) = PLAN.findall(rows["plan"])
    assert f"~~~~\naudience-sync sync b --plan {plan}\n~~~~\n" in done.out
    listed = program.run("diff", "b", "--format", "markdown", "--members", "2", "--now", DAYS[3])
    assert "~~~~\nexited     person-0000\nentered    person-0002\n~~~~\n" in listed.out


def test_markdown_says_what_is_held(program: Program) -> None:
    (program.folder / "b.csv").write_text("user_id,email\n")
    done = program.run("diff", "b", "--format", "markdown", "--now", DAYS[3])
    assert "| guard | **HELD: the source is empty: all 2 would leave** |" in done.out
