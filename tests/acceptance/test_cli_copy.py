"""``db copy``: a run on the copy does exactly what a run on the first store would have done."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.program import Program, people
from tests.fakes.tracking_api import serve

SQLITE = 'url = "sqlite:///state.db"'
MEMBERS = 300


@pytest.fixture
def program(tmp_path: Path) -> Program:
    folder = tmp_path / "program"
    folder.mkdir()
    program = Program(folder=folder, variables={"WRITE_KEY": "test"})
    program.configure({"vip": ["calls"], "old": ["calls"]})
    program.members("vip", range(20))
    program.members("old", range(10, 30))
    return program


def use(program: Program, url: str) -> None:
    """Let the configuration name another store; the rest of it stays."""
    config = program.folder / "config.toml"
    lines = config.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("url = "))
    lines[at] = f'url = "{url}"'
    config.write_text("\n".join(lines) + "\n")


def next_day(program: Program) -> tuple[Any, list[Any]]:
    """What the second day's run says and tells; everything but the store is put back after it."""
    files = program.files()
    before = len(program.calls())
    program.members("vip", range(5, 25))
    program.members("old", [*range(10, 30), 40])
    done = program.run("sync", "--now", "2030-01-02", "--json")
    assert done.code == 0, done
    said = {k: v for k, v in done.json().items() if k != "seconds"}
    told = program.calls()[before:]
    program.put_back(files)
    return said, told


@pytest.mark.parametrize("way", ["to PostgreSQL", "to SQLite"])
def test_the_next_day_is_the_same_on_the_copy(
    program: Program, postgres_url: str, way: str
) -> None:
    first, second = "sqlite:///state.db", postgres_url
    if way == "to SQLite":
        first, second = second, first
        use(program, first)
    assert program.run("sync", "--now", "2030-01-01").code == 0
    assert len(program.calls()) == 40
    files = program.files()
    done = program.run("db", "copy", "--to", second, "--yes")
    assert (done.code, done.err) == (0, "")
    assert done.lines()[:2] == [
        "old  20 members read back",
        "vip  20 members read back",
    ]
    again = program.run("db", "copy", "--to", second, "--yes")
    assert again.code == 2
    assert "there is a store at the target already" in again.err

    use(program, second)
    said, told = next_day(program)
    assert [(d["audience"], d["accepted"]) for d in said["deliveries"]] == [("old", 1), ("vip", 10)]
    program.put_back(files)
    assert next_day(program) == (said, told)
    assert len({call["messageId"] for call in told}) == len(told) == 11


def test_a_delivery_goes_on_in_the_middle(
    program: Program, postgres_url: str, tmp_path: Path
) -> None:
    key = tmp_path / "accepted-key"
    key.write_text("test")
    with serve(log=tmp_path / "log", key_file=key, latency=0.1) as served:
        place = f'endpoint = "{served.endpoint}"\nconcurrency = 1\nbatch = 10\n'
        segment = f'[destinations.seg]\ntype = "segment"\nwrite_key = "${{WRITE_KEY}}"\n{place}'
        program.configure({"vip": ["seg"]}, destinations=segment)
        program.members("vip", range(MEMBERS))
        with program.start("sync") as process:
            while not served.log.stat().st_size:
                time.sleep(0.005)
            key.write_text("another")
            process.communicate(timeout=30)
        assert process.returncode == 77
        told = len(served.calls())
        assert 0 < told < MEMBERS
        assert program.run("db", "copy", "--to", postgres_url, "--yes").code == 0
        key.write_text("test")
        use(program, postgres_url)
        program.members("vip", range(1, MEMBERS))
        done = program.run("sync", "--json")
        assert done.code == 0, done
        users = [call["userId"] for call in served.calls()]
        assert sorted(users) == sorted(people(range(MEMBERS)))  # once each
        assert {d["accepted"] for d in done.json()["deliveries"]} == {MEMBERS - told}
        done = program.run("sync", "--all", "--json")
        assert [d["accepted"] for d in done.json()["deliveries"]] == [1]


def test_where_it_goes_may_be_a_secret(program: Program) -> None:
    program.run("sync")
    secret = program.folder / "url"
    secret.write_text("sqlite:///copied.db")
    secret.chmod(0o600)
    assert program.run("db", "copy", "--to", "${file:url}", "--yes").code == 0
    assert (program.folder / "copied.db").stat().st_mode & 0o777 == 0o600
    program.variables["TARGET"] = "postgresql://ann:Kn7ff-lOng@127.0.0.1:1/none"
    done = program.run("db", "copy", "--to", "${TARGET}", "--yes")
    assert done.code == 74
    assert "Kn7ff-lOng" not in done.out + done.err


@pytest.mark.parametrize(
    "url",
    ["${NOT_SET}", "${file:nowhere}", "mysql://h/d", "sqlite://", "state.db", "postgres://h/d", ""],
)
def test_a_url_that_cannot_be(program: Program, url: str) -> None:
    program.run("sync")
    done = program.run("db", "copy", "--to", url, "--yes")
    assert done.code == 2
    assert "--to" in done.err
    assert "Traceback" not in done.err


def test_it_asks_and_there_must_be_something(program: Program) -> None:
    nothing = program.run("db", "copy", "--to", "sqlite:///copied.db", "--yes")
    assert nothing.code == 2
    assert "no store to copy" in nothing.err
    program.run("sync")
    assert program.run("db", "copy", "--to", "sqlite:///copied.db").code == 2
    assert program.on_terminal("db", "copy", "--to", "sqlite:///copied.db", typed="n\n").code == 1
    assert not (program.folder / "copied.db").exists()
