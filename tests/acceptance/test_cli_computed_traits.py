"""Computed traits from the file to the call: values, who left, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.acceptance.program import CALLS, Program, told

SOURCE = '[store]\nurl = "sqlite:///state.db"\n[sources.files]\ntype = "files"\nroot = "."\n'
TRAIT = """
[[computed_traits]]
name = "Lifetime Value"
source = "files"
query = "SELECT * FROM 'value.csv'"
destinations = ["calls"]
"""
DAYS = [f"2026-03-0{day}T00:00Z" for day in range(1, 8)]


def program_in(folder: Path) -> Program:
    program = Program(folder=folder)
    configure(program, TRAIT)
    return program


def configure(program: Program, trait: str) -> None:
    (program.folder / "config.toml").write_text(SOURCE + CALLS + trait)


def write(program: Program, rows: Mapping[str, object], plan: str = "free") -> None:
    """``None`` is written as an empty field, which is read as NULL."""
    lines = [f"{user},{'' if value is None else value},{plan}" for user, value in rows.items()]
    (program.folder / "value.csv").write_text("\n".join(["user_id,value,plan", *lines, ""]))


def values(calls: list[dict[str, Any]]) -> dict[str, Any]:
    return told(calls, "lifetime_value")


def test_values_are_told_and_null_when_they_are_gone(tmp_path: Path) -> None:
    program = program_in(tmp_path)
    write(program, {"u1": 1.5, "u2": 20, "u3": None, "u4": 4})
    assert "computed trait" in program.run("check").out
    assert program.run("sync", "--now", DAYS[0]).code == 0
    first = program.calls()
    assert values(first) == {"u1": 1.5, "u2": 20.0, "u4": 4.0}, "u3 has none"
    personas = first[0]["context"]["personas"]
    assert personas["computation_class"] == "trait"
    assert personas["computation_key"] == "lifetime_value"
    assert first[0]["traits"] == {"lifetime_value": 1.5, "plan": "free"}

    write(program, {"u1": None, "u2": 21, "u3": 3, "u5": 0})
    shown = program.run("diff", "--now", DAYS[1]).out
    assert "3 → 3   +2 −2 ~1" in shown
    assert "5 calls" in shown
    assert program.run("sync", "--now", DAYS[1]).code == 0
    assert values(program.calls()[3:]) == {
        "u1": None,
        "u2": 21.0,
        "u3": 3.0,
        "u4": None,
        "u5": 0.0,
    }
    status = program.run("status", "--json").json()
    assert [(a["key"], a["kind"]) for a in status["audiences"]] == [("lifetime_value", "trait")]


def test_another_column_alone_tells_nobody_and_diff_knows_it(tmp_path: Path) -> None:
    program = program_in(tmp_path)
    write(program, {"u1": 1, "u2": 2})
    program.run("sync", "--now", DAYS[0])
    write(program, {"u1": 1, "u2": 2}, plan="pro")
    shown = program.run("diff", "--now", DAYS[1]).out
    assert "+0 −0 ~2" in shown
    assert "nothing to tell" in shown
    assert program.run("sync", "--now", DAYS[1]).code == 0
    assert len(program.calls()) == 2
    write(program, {"u1": 1, "u2": 3}, plan="pro")
    program.run("sync", "--now", DAYS[2])
    (call,) = program.calls()[2:]
    assert call["traits"] == {"lifetime_value": 3, "plan": "pro"}


def test_a_source_that_lost_all_values_is_held(tmp_path: Path) -> None:
    """A broken join gives every row without its value."""
    program = program_in(tmp_path)
    everyone = dict.fromkeys((f"u{n}" for n in range(40)), 5)
    write(program, everyone)
    program.run("sync", "--now", DAYS[0])
    write(program, dict.fromkeys(everyone))
    assert program.run("sync", "--now", DAYS[1]).code == 3
    assert len(program.calls()) == 40


def test_two_values_for_one_user_fail_the_capture_and_nobody_is_told(tmp_path: Path) -> None:
    program = program_in(tmp_path)
    write(program, {"u1": 1, "u2": 2})
    program.run("sync", "--now", DAYS[0])
    with (tmp_path / "value.csv").open("a") as file:
        file.write("u1,5,free\nu2,2,free\n")
    done = program.run("sync", "--now", DAYS[1])
    assert done.code == 65
    assert "different values for the same user_id (users: 1)" in done.out
    assert "u1" not in done.out + done.err
    assert len(program.calls()) == 2
    assert program.stored("SELECT max(seq) FROM snapshot") == [(1,)]


def test_a_query_without_a_value_is_found_by_check(tmp_path: Path) -> None:
    program = program_in(tmp_path)
    (tmp_path / "value.csv").write_text("user_id,amount\nu1,3\n")
    done = program.run("check")
    assert done.code == 65
    assert "WRONG computed trait lifetime_value" in done.out
    assert "the query gives no column value, only user_id, amount" in done.out


def test_a_key_never_changes_its_kind(tmp_path: Path) -> None:
    """Refused before anything is read, written or sent."""
    program = program_in(tmp_path)
    write(program, {"u1": 1, "u2": 2})
    program.run("sync", "--now", DAYS[0])
    before = program.stored("SELECT * FROM run")
    configure(program, TRAIT.replace("computed_traits", "audiences"))
    for command in ("sync", "diff", "check", "status"):
        done = program.run(command)
        assert done.code == 78, done
        assert "audience lifetime_value: this key was captured as a computed trait" in done.err
        assert "a key is never used again" in done.err
    assert len(program.calls()) == 2
    assert program.stored("SELECT * FROM run") == before
    configure(program, TRAIT.replace("computed_traits", "audiences") + 'key = "lifetime_value_2"\n')
    assert program.run("check").code == 0


def test_a_kind_that_was_never_captured_can_be_mended(tmp_path: Path) -> None:
    program = program_in(tmp_path)
    (tmp_path / "value.csv").write_text("user_id,amount\nu1,3\n")
    assert program.run("sync", "--now", DAYS[0]).code == 65
    configure(program, TRAIT.replace("computed_traits", "audiences"))
    assert program.run("sync", "--now", DAYS[1]).code == 0
    assert program.calls()[0]["traits"] == {"amount": 3, "lifetime_value": True}
