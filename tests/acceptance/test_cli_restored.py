"""``db restored``: a backup is put back, and destinations are told the truth again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.program import NEW_STORE, Program, people, told


@pytest.fixture
def program(tmp_path: Path) -> Program:
    program = Program(folder=tmp_path)
    program.configure()
    return program


def day(program: Program, number: int, members: range) -> list[str]:
    """Sync a day's members; the ids of the messages."""
    before = len(program.calls())
    program.members("vip", members)
    done = program.run("sync", "--all", "--now", f"2030-01-{number:02}")
    assert done.code == 0, done
    return [call["messageId"] for call in program.calls()[before:]]


def test_the_truth_is_told_anew(program: Program) -> None:
    day(program, 1, range(20))
    backup = (program.folder / "state.db").read_bytes()
    day(program, 2, range(5, 25))
    (program.folder / "state.db").write_bytes(backup)

    done = program.run("db", "restored", "--yes", "--reason", "disk failed")
    assert (done.code, done.err) == (0, "")
    assert done.lines()[0] == "vip → calls"
    assert "not known here: who entered after the backup was taken" in done.out
    # For the same time once more: only another key makes other ids of the same calls.
    ids = day(program, 2, range(2, 24))
    first = program.calls()[: -len(ids)]
    assert not {call["messageId"] for call in first} & set(ids)
    # Everybody of now, and false for who was told true by what the backup knows.
    new = program.calls()[-len(ids) :]
    expected = dict.fromkeys(people(range(2, 24)), True) | dict.fromkeys(people(range(2)), False)
    assert told(new) == expected
    assert told(program.calls()) == expected | dict.fromkeys(people([24]), True)
    assert day(program, 3, range(2, 24)) == []
    assert program.run("status", "--exit-code").code == 0


def test_a_store_that_is_lost_is_not_replaced_without_a_word(
    program: Program, tmp_path: Path
) -> None:
    program.members("vip", range(3))
    assert program.run("sync").err == NEW_STORE
    assert program.run("sync").err == ""
    for lost in program.folder.glob("state.db*"):
        lost.unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = ["--config", str(program.folder / "config.toml"), "pause", "vip", "--yes"]
    done = Program(folder=elsewhere).run(*command)
    assert done.err == NEW_STORE.replace("state.db", str(program.folder / "state.db"))


def test_it_is_in_the_history(program: Program) -> None:
    day(program, 1, range(3))
    program.run("db", "restored", "--yes", "--reason", "disk failed")
    (run,) = program.stored("SELECT outcome, counts FROM run WHERE kind = 'restored'")
    assert run[0] == "ordered"
    assert "disk failed" in run[1]


def test_it_asks_and_there_must_be_a_store(program: Program) -> None:
    nothing = program.run("db", "restored", "--yes")
    assert nothing.code == 2
    assert "no store here" in nothing.err
    assert not (program.folder / "state.db").exists()
    day(program, 1, range(3))
    assert program.run("db", "restored").code == 2
    assert program.on_terminal("db", "restored", typed="n\n").code == 1
    assert program.stored("SELECT count(*) FROM resync") == [(0,)]
    assert program.on_terminal("db", "restored", typed="y\n").code == 0
    assert program.stored("SELECT count(*) FROM resync") == [(1,)]
