"""One audience whose stored members cannot be read: the others go on, and the report has all.

(P1, P10)
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.program import Program, told

DAMAGE = """
UPDATE chunk SET payload = x'0123456789' WHERE snapshot_id IN (
    SELECT snapshot.id FROM snapshot JOIN audience ON audience.id = audience_id WHERE key = 'vip'
)
"""
DAY = "2026-03-01T{:02}:00Z"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Three audiences, all told; then the chunks of the first are damaged, and all change."""
    made = Program(folder=tmp_path)
    made.configure({"vip": ["calls"], "old": ["calls"], "young": ["calls"]})
    for key in ("vip", "old", "young"):
        made.members(key, range(30))
    assert sync(made, 0).code == 0
    for key in ("vip", "old", "young"):
        made.members(key, range(31))
    return made


def sync(program: Program, hour: int, *more: str):  # type: ignore[no-untyped-def]
    return program.run("sync", "--all", "--now", DAY.format(hour), *more)


def damage(program: Program) -> None:
    with closing(sqlite3.connect(program.folder / "state.db")) as connection, connection:
        connection.execute(DAMAGE)


def test_its_capture_fails_and_the_others_are_told(program: Program) -> None:
    damage(program)
    done = sync(program, 2)
    assert done.code == 74
    assert [line.split()[:2] for line in done.lines() if line[0] not in " 0123456789"] == [
        ["vip", "FAILED"],
        ["old", "incremental"],
        ["young", "incremental"],
    ]
    assert "a stored chunk is damaged" in done.out
    assert told(program.calls()[90:], "young") == {"person-0030": True}
    shown = program.run("status")
    assert "! vip  failed  a stored chunk is damaged" in shown.out


def test_its_delivery_fails_and_the_others_are_told(program: Program) -> None:
    """Captured in time, and damaged before it was told."""
    assert program.run("pause", "--destination", "calls", "--yes").code == 0
    assert sync(program, 2).code == 0
    assert program.run("resume", "--destination", "calls", "--yes").code == 0
    damage(program)
    done = program.run("sync", "--now", DAY.format(2), "--json")
    assert done.code == 74
    found = {one["audience"]: one for one in done.json()["deliveries"]}
    outcomes = {key: (one["outcome"], one["accepted"]) for key, one in found.items()}
    assert outcomes == {"vip": ("failed", 0), "old": ("completed", 1), "young": ("completed", 1)}
    assert found["vip"]["error"] == "a stored chunk is damaged"
    assert found["vip"]["plan"] is None


def test_the_others_can_be_looked_at(program: Program) -> None:
    damage(program)
    done = program.run("diff", "--now", DAY.format(2), "--json")
    assert done.code == 74
    assert "young" in done.out
    assert "damaged" in done.out


def test_it_cannot_be_retired_by_the_file_and_the_others_go_on(program: Program) -> None:
    damage(program)
    config = program.folder / "config.toml"
    config.write_text(config.read_text().replace('name = "vip"', 'name = "vip"\nstate = "retired"'))
    done = sync(program, 2)
    assert done.code == 74
    assert [line.split()[:2] for line in done.lines() if line[0] not in " 0123456789"] == [
        ["vip", "FAILED"],
        ["old", "incremental"],
        ["young", "incremental"],
    ]
