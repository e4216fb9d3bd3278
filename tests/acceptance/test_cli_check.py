"""``check``: what is looked at, and what ``--offline`` leaves alone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.program import Program, segment


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Nobody answers there, and nobody else takes it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def program(tmp_path: Path, closed_port: int) -> Program:
    program = Program(folder=tmp_path, variables={"WRITE_KEY": "rT9wQ3xK7pLm2Vb8"})
    place = segment("cdp", f"http://127.0.0.1:{closed_port}/v1")
    program.configure({"vip": ["cdp"]}, destinations=place)
    program.members("vip", range(3))
    return program


def test_offline_reaches_no_destination(program: Program) -> None:
    before = program.files()
    online = program.run("check")
    assert (online.code, "WRONG destination" in online.out) == (69, True)
    offline = program.run("check", "--offline")
    assert (offline.code, offline.err) == (0, "")
    (line,) = offline.lines()
    assert line.split() == [
        *("ok", "audience", "vip", "user_id,", "email"),
        *("new", "key,", "permanent", "after", "the", "first", "capture"),
    ]
    assert program.files() == before


def test_offline_reaches_no_store_that_is_no_file(program: Program) -> None:
    path = program.folder / "config.toml"
    far = path.read_text().replace("sqlite:///state.db", "postgresql://sync@nowhere.invalid/sync")
    path.write_text(far)
    assert program.run("check").code == 74
    offline = program.run("check", "--offline", "--json")
    assert offline.code == 0
    (checked,) = offline.json()["checks"]
    assert checked["text"] == "user_id, email", "whether the key is new is not known"


def test_offline_finds_what_is_wrong_here(program: Program) -> None:
    program.members("vip", [])
    (program.folder / "vip.csv").write_text("id,email\n1,a@private.example\n")
    wrong = program.run("check", "--offline")
    assert wrong.code == 65
    assert "no column user_id, only id, email" in wrong.out
    path = program.folder / "config.toml"
    path.write_text(path.read_text().replace("destinations =", "destinatoins ="))
    unknown = program.run("check", "--offline")
    assert (unknown.code, unknown.out) == (78, "")
    assert 'did you mean "destinations"?' in unknown.err
