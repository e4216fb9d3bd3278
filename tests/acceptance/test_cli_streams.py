"""Standard output and error may be closed, full, read by nobody, or a terminal."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.program import LONGEST, SPANS, Program, command

UNUSED = '[sources.unused]\ntype = "files"\nroot = "."\n'
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9]")
MANY = 3_000
"""Members whose listing does not fit into a pipe's buffer."""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Program:
    program = Program(folder=tmp_path_factory.mktemp("streams"))
    program.configure(more=UNUSED)
    program.members("vip", range(MANY))
    return program


@pytest.fixture
def program(fresh: Program) -> Iterator[Program]:
    """Never synced, with a warning on standard error in every run."""
    before = fresh.files()
    yield fresh
    fresh.put_back(before)


def test_a_reader_who_leaves_early_is_no_error(program: Program) -> None:
    process = program.start("diff", "--format", "ndjson")
    assert process.stdout is not None
    assert process.stdout.readline().startswith('{"audience": "vip", "user_id": "person-0000"')
    process.stdout.close()
    assert process.wait(LONGEST) == 0
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


def test_nobody_reads_and_the_work_is_done(program: Program) -> None:
    program.configure(more=f"{UNUSED}[guard]\nmax_initial = 10\n")
    assert unread(program, "sync") == 3, "as if somebody had read it"
    ((plan,),) = program.stored("SELECT plan_id FROM snapshot")
    assert program.stored(SPANS) == [("held", 0, MANY)]
    assert unread(program, "approve", plan, "--yes") == 0
    assert program.stored(SPANS) == [("open", 0, MANY)]


def unread(program: Program, *arguments: str) -> int:
    process = program.start(*arguments)
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    return process.wait(LONGEST)


@pytest.mark.parametrize("closing_them", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_do_not_reach_the_store(program: Program, closing_them: str) -> None:
    """The next file that is opened gets the number of a closed stream."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closing_them}', "sh", *command(), "sync"],
        cwd=program.folder,
        env=program.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "Traceback" not in done.stderr
    assert len(program.calls()) == MANY
    with closing(sqlite3.connect(program.folder / "state.db")) as store:
        assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_full_disk_behind_stdout_is_said_not_thrown(program: Program) -> None:
    with Path("/dev/full").open("w") as full:
        process = program.start("diff", "--format", "ndjson", stdout=full)
        _, err = process.communicate(timeout=LONGEST)
    assert process.returncode == 74
    assert "the output could not be written (No space left on device)" in err
    assert "Traceback" not in err


def test_the_output_is_utf_8_wherever_it_runs(program: Program) -> None:
    path = program.folder / "config.toml"
    path.write_text(path.read_text().replace('name = "vip"', 'name = "Größe"\nkey = "vip"'))
    elsewhere = Program(folder=program.folder, variables={"PYTHONIOENCODING": "ascii"})
    done = elsewhere.run("status", "--json")
    assert done.code == 0
    assert [audience["name"] for audience in done.json()["audiences"]] == ["Größe"]
    assert "Größe" in done.out


def test_progress_is_for_terminals_and_stays_out_of_the_output(program: Program) -> None:
    before = program.files()
    shown = program.on_terminal("sync", "--json")
    assert shown.code == 0
    assert "vip → calls" in shown.err
    assert COLOUR.search(shown.err)
    assert shown.json()["deliveries"][0]["accepted"] == MANY
    assert "\x1b" not in shown.out

    program.put_back(before)
    plain = Program(folder=program.folder, variables={"NO_COLOR": "1"})
    shown = plain.on_terminal("sync")
    assert shown.code == 0
    assert "vip → calls" in shown.err
    assert not COLOUR.search(shown.err)
    assert "\x1b" not in shown.out


BUG = """
import sys, threading
import audience_sync.cli.diff, audience_sync.cli.status, audience_sync.cli.sync_run
from audience_sync.cli.main import main

def broken(*_, **__):
    raise ZeroDivisionError("person-0001 and a secret")

audience_sync.cli.diff.opened = broken
audience_sync.cli.sync_run.SyncRun.work = broken
if sys.argv[1] == "status":
    def lonely(*_):
        threading.Thread(target=broken).start()
        broken()
    audience_sync.cli.status.overview = lonely
main(sys.argv[1:])
"""


@pytest.mark.parametrize("where", ["diff", "sync", "status"])
def test_a_bug_is_70_and_says_where_but_not_what(program: Program, where: str) -> None:
    """In the command itself, in the thread that works, in a thread that nobody waits for."""
    for traceback in {False, where == "diff"}:
        done = subprocess.run(
            [sys.executable, "-c", BUG, where],
            cwd=program.folder,
            env=program.environment() | ({"AUDIENCE_SYNC_TRACEBACK": "1"} if traceback else {}),
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST,
        )
        assert (done.returncode, done.stdout) == (70, "")
        assert "this is a bug: ZeroDivisionError at <string>:7" in done.stderr
        assert ("AUDIENCE_SYNC_TRACEBACK=1" in done.stderr) is not traceback
        assert ("person-0001" in done.stderr) is traceback
        assert ("Traceback" in done.stderr) is traceback
