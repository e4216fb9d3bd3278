"""Nobody is left out without a word: who, why, and the command or edit that ends it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.program import Program

DAY = "2026-03-01T{:02}:00Z"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    made = Program(folder=tmp_path)
    made.configure({"vip": ["calls"], "old": ["calls"]})
    for key in ("vip", "old"):
        made.members(key, range(30))
    assert sync(made, 0).code == 0
    return made


def sync(program: Program, hour: int, *more: str):  # type: ignore[no-untyped-def]
    return program.run("sync", "--all", "--now", DAY.format(hour), *more)


def by_person(program: Program) -> None:
    assert program.run("pause", "vip", "--yes").code == 0


def by_file(program: Program, state: str = "paused") -> None:
    config = program.folder / "config.toml"
    text = config.read_text()
    config.write_text(text.replace('name = "vip"', f'name = "vip"\nstate = "{state}"'))


def by_both(program: Program) -> None:
    by_person(program)
    by_file(program)


def retired(program: Program) -> None:
    assert program.run("retire", "vip", "--on-retire", "leave", "--yes").code == 0


def retired_by_file(program: Program) -> None:
    by_file(program, "retired")


def retired_unborn(program: Program) -> None:
    """By the file, and it was never captured."""
    program.members("new", range(3))
    program.configure({"new": ["calls"], "old": ["calls"], "vip": ["calls"]})
    config = program.folder / "config.toml"
    config.write_text(config.read_text().replace('"new"', '"new"\nstate = "retired"'))


def place(program: Program) -> None:
    assert program.run("pause", "--destination", "calls", "--yes").code == 0


FILE = 'take state = "{}" out of the configuration'
CASES = [
    (by_person, "vip", "paused", "by a person", "audience-sync resume vip"),
    (by_file, "vip", "paused", 'by state = "paused" in the configuration', FILE.format("paused")),
    (
        by_both,
        "vip",
        "paused",
        'by a person and state = "paused" in the configuration',
        "audience-sync resume vip, " + FILE.format("paused"),
    ),
    (retired, "vip", "retired", "for good", "take it out of the configuration"),
    (retired_by_file, "vip", "retired", "", "take it out of the configuration"),
    (
        retired_unborn,
        "new",
        "retired",
        'by state = "retired" in the configuration',
        FILE.format("retired"),
    ),
    (place, "calls", "paused", "by a person", "audience-sync resume --destination calls"),
]


@pytest.mark.parametrize(
    ("order", "name", "outcome", "why", "ends"), CASES, ids=[case[0].__name__ for case in CASES]
)
def test_every_command_says_who_why_and_what_ends_it(
    program: Program,
    order: Callable[[Program], None],
    name: str,
    outcome: str,
    why: str,
    ends: str,
) -> None:
    order(program)
    done = sync(program, 2)
    assert done.code == 0
    lines = done.lines()
    said = next(i for i, line in enumerate(lines) if line.startswith(name))
    assert lines[said].split()[1] == outcome.upper()
    assert why in lines[said]
    if why:  # A run that has just retired it says what it did.
        assert ends in lines[said + 1]
    for words in (["sync", "--now", DAY.format(2)], ["diff", "--now", DAY.format(2)], ["check"]):
        done = program.run(*words)
        (line,) = _about(name, done.out + done.err)
        assert done.code == 0, words
        assert outcome in line.lower(), words
        assert why in line, words
        assert ends in done.out + done.err, words
    shown = program.run("status").out
    assert outcome in shown
    assert ends.rsplit(", ", maxsplit=1)[-1].removeprefix("audience-sync ") in shown


def _about(name: str, text: str) -> list[str]:
    """Lines that say of ``name`` that it is left out."""
    lines = [line for line in text.splitlines() if name in line and not line.startswith("  ")]
    return [line for line in lines if "paused" in line.lower() or "retired" in line.lower()]


def test_one_that_may_be_renamed_is_asked_about_everywhere(program: Program) -> None:
    config = program.folder / "config.toml"
    config.write_text(config.read_text().replace('name = "vip"', 'name = "Very Important"'))
    for words in (["sync", "--now", DAY.format(2)], ["diff"], ["check"], ["status"]):
        done = program.run(*words)
        assert done.code == (0 if words == ["status"] else 3), words
        assert "renamed?" in done.out, words
        assert 'key = "vip"' in done.out, words


def test_in_json(program: Program) -> None:
    by_person(program)
    (capture,) = [c for c in sync(program, 2, "--json").json()["captures"] if "why" in c]
    said = {"why": "by a person", "ends": "audience-sync resume vip"}
    assert capture == {"audience": "vip", "outcome": "paused", **said}
    vip, old = program.run("status", "--json").json()["audiences"]
    assert vip["left_out"] == {"outcome": "paused", **said}
    assert old["left_out"] is None


def test_a_run_that_does_nothing_but_leave_out_says_when_the_next_is(program: Program) -> None:
    by_person(program)
    lines = program.run("sync", "--now", DAY.format(0)).lines()
    assert [line.split()[:2] for line in lines] == [
        ["vip", "PAUSED"],
        ["what", "ends"],
        ["nothing", "due;"],
    ]


def test_a_resync_that_waits_for_a_later_time_has_a_line(program: Program) -> None:
    """With ``--now`` in the past it is not due, and nobody would hear of it."""
    assert program.run("resync", "vip", "--yes").code == 0
    done = program.run("sync", "--now", DAY.format(0))
    assert [line.split()[:2] for line in done.lines()] == [
        ["vip", "WAITS"],
        ["what", "ends"],
        ["nothing", "due;"],
    ]
    assert "audience-sync sync vip" in done.out
    done = program.run("sync", "vip")
    assert "resync" in done.out
    assert "WAITS" not in program.run("sync").out
