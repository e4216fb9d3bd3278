"""``diff`` writes nothing, and ``sync --plan`` commits exactly what it showed."""

from __future__ import annotations

import pytest

from tests.acceptance.program import SNAPSHOTS, Program, people, told

NOW, LATER, LATEST = "2026-03-01T06:00Z", "2026-03-01T09:00Z", "2026-03-01T12:00Z"


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Program, dict[str, bytes]]:
    program = Program(folder=tmp_path_factory.mktemp("synced"))
    program.configure({"vip": ["calls"], "winback": ["calls"]})
    program.members("vip", range(40))
    program.members("winback", range(40))
    assert program.run("sync", "--now", NOW).code == 0
    program.members("vip", range(1, 41))
    program.members("winback", range(2, 42))
    return program, program.files()


@pytest.fixture
def program(synced: tuple[Program, dict[str, bytes]]) -> Program:
    """``vip`` and ``winback``, told at 06:00; both have other members now."""
    made, files = synced
    made.put_back(files)
    return made


def plans(program: Program, now: str) -> dict[str, str]:
    shown = program.run("diff", "--json", "--now", now).json()["audiences"]
    return {audience["audience"]: audience["plan"] for audience in shown}


def test_diff_leaves_every_byte_as_it_was(program: Program) -> None:
    before = program.files()
    done = program.run("diff", "--members", "9", "--now", LATER)
    assert done.out.count("+") == 2
    assert program.run("sync", "--dry-run", "--now", LATER).out.count("+1 −1") == 1
    assert program.files() == before


def test_a_plan_commits_that_audience_as_it_was_shown(program: Program) -> None:
    shown = plans(program, LATER)
    assert program.run("sync", "winback", "--now", LATEST).code == 0
    before = program.calls()
    overtaken = program.run("sync", "winback", "--plan", shown["winback"])
    assert (overtaken.code, overtaken.out) == (3, "")
    assert "winback was captured after this plan was made" in overtaken.err

    done = program.run("sync", "--plan", shown["vip"], "--json")
    assert done.code == 0, "what became of another audience does not matter"
    (capture,) = done.json()["captures"]
    assert (capture["audience"], capture["outcome"]) == ("vip", "committed")
    assert capture["plan"] == shown["vip"], "what diff showed is what was committed"
    assert told(program.calls()[len(before) :]) == {"person-0000": False, "person-0040": True}
    assert len(program.calls()) == len(before) + 2


def test_a_plan_leaves_other_audiences_alone(program: Program) -> None:
    shown = plans(program, LATER)
    assert program.run("sync", "--plan", shown["vip"]).code == 0
    assert program.stored(SNAPSHOTS) == [("vip", 2, "current"), ("winback", 1, "current")]
    assert told(program.calls()[80:]).keys() == people([0, 40])
    assert len(program.calls()) == 82


def test_a_source_that_changed_in_between_is_refused(program: Program) -> None:
    shown = plans(program, LATER)
    program.members("vip", range(1, 42))
    sent = program.calls()
    done = program.run("sync", "vip", "--plan", shown["vip"])
    assert done.code == 3
    assert "the source gives another plan now" in done.out
    assert program.calls() == sent
    assert program.stored(SNAPSHOTS)[0] == ("vip", 1, "current")


@pytest.mark.parametrize("command", ["sync", "diff"])
def test_now_before_the_last_capture_is_refused(program: Program, command: str) -> None:
    before = program.files()
    done = program.run(command, "--now", "2026-03-01T05:59Z")
    assert (done.code, done.out) == (2, "")
    assert "is before the last capture (20260301T0600Z)" in done.err
    assert program.files() == before
