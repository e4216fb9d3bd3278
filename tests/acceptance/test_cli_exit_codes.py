"""The exit code says what came of a run, and standard error (or the report) says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from audience_sync.cli.main import _run
from audience_sync.store.engine import Database
from audience_sync.store.leases import Leases
from tests.acceptance.program import CALLS, Program, people, segment, told
from tests.fakes.tracking_api import Served, serve

KEY = "Wk7acceptance0001"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(log=tmp_path_factory.mktemp("server") / "log", write_key=KEY) as served:
        yield served


@pytest.fixture
def program(tmp_path: Path) -> Program:
    made = Program(folder=tmp_path, variables={"WRITE_KEY": KEY})
    made.configure()
    made.members("vip", range(100))
    return made


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sync", "--now", "yesterday"], "yesterday is not a time such as"),
        (["sync", "--now", "9999-12-31"], "is not between"),
        (["diff", "--now", "0001-01-01T00:00+14:00"], "is not between"),
        (["sync", "--max-duration", "50"], "a number and a unit"),
        (["sync", "--plan", "nonsense"], "nonsense is not a plan id"),
        (["sync", "--plan", "00010101T0000Z-aa"], "is not a plan id"),
        (["sync", "--plan", "20260101T0000Z-zz"], "is not a plan id"),
        (["sync", "\udcff"], "\\udcff is not UTF-8 text"),
        (["approve", "20260101T0000Z-aa", "--reason", "\udcff"], "is not UTF-8 text"),
        (["sync", "--plan", "20260101T0000Z-aa", "--plan", "20260102T0000Z-bb"], "one by one"),
        (["sync", "--now", "2026-01-02", "--plan", "20260101T0000Z-aa"], "leave --now out"),
        (["approve", "2026"], "2026 is not a plan id"),
        (["approve", ""], "is not a plan id"),
        (["diff", "--format", "xml"], "'xml' is not one of"),
        (["diff", "--members", "-1"], "-1 is not in the range"),
        (["diff", "--members", str(10**20)], "is not in the range"),
        (["status", "--nonsense"], "No such option"),
        (["nonsense"], "No such command"),
    ],
)
def test_a_wrong_command_line_is_2(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _run(["--config", str(tmp_path / "none.toml"), *arguments]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_audience_is_2_with_the_list(program: Program) -> None:
    done = program.run("sync", "vpi")
    assert (done.code, done.out) == (2, "")
    assert "no audience vpi" in done.err
    assert "there are: vip" in done.err
    assert program.calls() == []


def test_nothing_due_is_0_and_changes_and_trouble_are_4_where_asked_for(program: Program) -> None:
    assert program.run("diff", "--exit-code").code == 4
    assert program.run("sync").code == 0
    due = program.run("sync")
    assert due.code == 0
    (line,) = due.lines()
    assert line.startswith("nothing due; next: vip ")
    assert line.endswith(" UTC")
    assert len(program.calls()) == 100
    assert program.run("diff", "--exit-code").code == 0
    assert program.run("status", "--exit-code").code == 0
    (program.folder / "vip.csv").write_text("user_id,email\n")
    assert program.run("sync", "vip").code == 3
    trouble = program.run("status", "--exit-code")
    assert trouble.code == 4
    assert trouble.lines()[0].startswith("! vip  held ")


def test_refused_data_is_65_and_nobody_leaves(program: Program) -> None:
    program.configure({"vip": ["calls"], "lost": ["calls"]})
    program.members("lost", range(3))
    assert program.run("sync").code == 0
    before = program.calls()
    (program.folder / "lost.csv").unlink()
    whole = (program.folder / "vip.csv").read_text()
    (program.folder / "vip.csv").write_text(whole[: whole.rindex(",") - 3])
    done = program.run("sync", "--all", "--json")
    assert done.code == 65
    captures = done.json()["captures"]
    assert [(c["audience"], c["outcome"]) for c in captures] == [
        ("vip", "refused"),
        ("lost", "refused"),
    ]
    assert "vip.csv" in captures[0]["error"]
    assert "lost.csv" in captures[1]["error"]
    assert "person-" not in done.out + done.err, "what the broken line held is nobody's business"
    assert program.calls() == before


def test_several_outcomes_give_the_first_of_the_order(program: Program, server: Served) -> None:
    wrong = Program(
        folder=program.folder, variables={"WRITE_KEY": KEY, "WRONG_KEY": "Wk7unknown0002"}
    )
    gone = segment("gone", server.faulty("404"))
    refusing = segment("refusing", server.endpoint).replace("WRITE_KEY", "WRONG_KEY")
    wrong.configure(
        {"vip": ["refusing", "gone", "calls"], "lost": ["calls"]},
        destinations=CALLS + gone + refusing,
    )
    first = wrong.run("sync", "--json")
    assert first.code == 77
    outcomes = {d["destination"]: d["outcome"] for d in first.json()["deliveries"]}
    assert outcomes == {"calls": "completed", "gone": "paused", "refusing": "paused"}
    assert {c["audience"]: c["outcome"] for c in first.json()["captures"]} == {
        "vip": "committed",
        "lost": "refused",
    }
    assert told(wrong.calls()) == dict.fromkeys(people(range(100)), True)

    wrong.configure({"vip": ["gone"], "lost": ["gone"]}, destinations=gone)
    assert wrong.run("sync").code == 65, "before 69"

    wrong.configure({"vip": ["gone"]}, destinations=gone)
    (program.folder / "vip.csv").write_text("user_id,email\n")
    held = wrong.run("sync", "vip")
    assert held.code == 3, "before 69"
    assert "paused: gone: unexpected answer 404" in held.out

    program.members("vip", range(100))
    last = wrong.run("sync", "vip")
    assert last.code == 69
    assert "0 accepted; 100 of 100 wait" in last.out
    assert server.calls() == []


def test_a_store_that_cannot_be_is_74_or_78(program: Program) -> None:
    (program.folder / "state.db").mkdir()
    done = program.run("sync")
    assert (done.code, done.out) == (74, "")
    assert "the store failed" in done.err
    assert "check the folder and the permissions" in done.err
    text = (program.folder / "config.toml").read_text()
    (program.folder / "config.toml").write_text(text.replace("///state.db", "///no/state.db"))
    assert program.run("sync").code == 74
    assert program.calls() == []


def test_a_broken_configuration_is_78_before_anything_else(program: Program) -> None:
    path = program.folder / "config.toml"
    path.write_text(path.read_text().replace('"1h"', '"1"').replace('"ndjson"', '"njdson"'))
    before = program.files()
    done = program.run("sync", "nobody")
    assert (done.code, done.out) == (78, "")
    assert len([line for line in done.err.splitlines() if "config.toml:" in line]) >= 2
    assert program.files() == before


def test_what_another_process_delivers_is_no_failure(program: Program) -> None:
    """As when cron's runs overlap during a first delivery."""
    program.configure(destinations=CALLS + 'quota = "5/day"\n')
    assert program.run("sync").code == 0
    database = Database(f"sqlite:///{program.folder / 'state.db'}")
    with Leases(database).hold("deliver:calls:initial"):
        done = program.run("sync")
    database.close()
    assert done.code == 0
    assert "leased: another process is at work on deliver:calls:initial" in done.out
    assert done.lines()[-1].startswith("0 delivered, 1 by another process, ")
    assert "failed" not in done.out


def test_what_was_named_and_is_leased_is_75(program: Program) -> None:
    assert program.run("db", "upgrade").code == 0
    database = Database(f"sqlite:///{program.folder / 'state.db'}")
    with Leases(database).hold("capture:vip"):  # this process lives, and holds it
        named = program.run("sync", "vip")
        assert named.code == 75
        assert "LEASED" in named.out
        everything = program.run("sync")
        assert everything.code == 0
    database.close()
    assert program.calls() == []
