"""``export``: the members at any kept snapshot, as files and streams."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.acceptance.program import Program, command, people

DAYS = [(datetime.now(UTC) - timedelta(days=n)).date().isoformat() for n in (3, 2, 1)]
"""Within ``keep``."""
MEMBERS = [range(30), range(5, 33), range(6, 40)]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    made = Program(folder=tmp_path_factory.mktemp("export"))
    made.configure({"vip": ["calls"], "later": ["calls"]})
    made.members("later", [])
    for day, numbers in zip(DAYS, MEMBERS, strict=True):
        made.members("vip", numbers)
        assert made.run("sync", "vip", "--now", day).code == 0
    return made


def test_csv_is_sorted_and_has_all_columns(program: Program) -> None:
    done = program.run("export", "vip")
    assert (done.code, done.err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["user_id"] for row in rows] == sorted(people(MEMBERS[2]))
    assert rows[0] == {"user_id": "person-0006", "email": "p6@private.example"}


@pytest.mark.parametrize("seq", [1, 2, 3])
def test_at_a_snapshot(program: Program, seq: int) -> None:
    done = program.run("export", "v*", "--at", str(seq), "--format", "ndjson")
    rows = [json.loads(line) for line in done.lines()]
    assert [row["user_id"] for row in rows] == sorted(people(MEMBERS[seq - 1]))
    assert [list(row) for row in rows] == [["user_id", "email"]] * len(rows)


def test_ids_that_are_numbers_stay_text(tmp_path: Path) -> None:
    program = Program(folder=tmp_path)
    program.configure()
    (tmp_path / "vip.csv").write_text('user_id,email,n\n007,"a ""b"", c",1\n8,,2.5\n')
    assert program.run("sync").code == 0
    exported = program.run("export", "vip", "--output", "again.csv")
    assert exported.out == "vip #1: 2 members written to again.csv\n"
    text = (tmp_path / "again.csv").read_text()
    assert text == '"user_id","email","n"\n"007","a ""b"", c",1\n"8",,2.5\n'
    (tmp_path / "again.csv").rename(tmp_path / "vip.csv")
    diff = program.run("diff", "vip", "--json").json()["audiences"][0]
    assert (diff["entered"], diff["exited"], diff["updated"]) == (0, 0, 0), "it can be read again"


def test_parquet_into_a_file_that_only_its_owner_reads(program: Program) -> None:
    done = program.run("export", "vip", "--format", "parquet", "--output", "vip.parquet")
    assert done.code == 0
    path = program.folder / "vip.parquet"
    assert path.stat().st_mode & 0o777 == 0o600
    table = pq.read_table(path)
    assert table.column_names == ["user_id", "email"]
    assert table.column("user_id").to_pylist() == sorted(people(MEMBERS[2]))


def test_parquet_into_a_stream_but_never_onto_a_terminal(program: Program) -> None:
    done = subprocess.run(
        [*command(), "export", "vip", "--format", "parquet"],
        cwd=program.folder,
        env=program.environment(),
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert pq.read_table(io.BytesIO(done.stdout)).num_rows == len(MEMBERS[2])
    script = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
    shown = subprocess.run(
        [sys.executable, "-c", script, *command(), "export", "vip", "--format", "parquet"],
        cwd=program.folder,
        env=program.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (shown.returncode, "--output FILE" in shown.stdout) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["vip", "--at", "4"], "no snapshot 4 of vip is kept\n  kept are 1 to 3"),
        (["nobody"], "no audience nobody\n  there are: later, vip"),
        (["later"], "later was never captured"),
        (["vip", "--at", "0"], "0 is not in the range"),
    ],
)
def test_what_is_not_there_is_said(program: Program, arguments: list[str], said: str) -> None:
    done = program.run("export", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_without_a_store_none_is_made(tmp_path: Path) -> None:
    program = Program(folder=tmp_path)
    program.configure()
    program.members("vip", range(3))
    before = program.files()
    assert program.run("export", "vip").code == 2
    assert program.files() == before


@pytest.mark.parametrize("form", ["csv", "ndjson", "parquet"])
def test_a_full_disk_leaves_what_was_there(program: Program, form: str) -> None:
    (program.folder / "kept.txt").write_text("mine")
    full = program.run("export", "vip", "--format", form, "--output", "/dev/full")
    assert (full.code, "No space left on device" in full.err) == (74, True)
    missing = program.run("export", "vip", "--format", form, "--output", "no/folder")
    assert (missing.code, "no/folder cannot be written" in missing.err) == (74, True)
    (program.folder / "circle").symlink_to("circle")
    assert program.run("export", "vip", "--format", form, "--output", "circle").code == 0
    (program.folder / "circle").unlink()
    with open("/dev/full", "wb") as nowhere:
        process = program.start("export", "vip", "--format", form, stdout=nowhere)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, "No space left on device" in said) == (74, True)


def test_a_file_is_whole_or_untouched(program: Program) -> None:
    """The snapshot turns out to be damaged on the way: what was there stays."""
    damaged = Program(folder=program.folder / "damaged")
    damaged.folder.mkdir()
    damaged.put_back(program.files() | {"members.csv": b"mine"})
    with closing(sqlite3.connect(damaged.folder / "state.db")) as connection:
        connection.execute("UPDATE snapshot SET members = members + 1 WHERE seq = 3")
        connection.commit()
    done = damaged.run("export", "vip", "--output", "members.csv")
    assert done.code == 74
    assert "no longer kept" in done.err
    after = damaged.files()
    assert after["members.csv"] == b"mine"
    assert {name for name in after if "members" in name} == {"members.csv"}


def test_a_reader_who_leaves_early_is_no_error(program: Program) -> None:
    for form in ("csv", "ndjson", "parquet"):
        ours, theirs = os.pipe()
        process = program.start("export", "vip", "--format", form, stdout=theirs)
        os.close(theirs)
        os.close(ours)
        assert (process.communicate(timeout=30)[1], process.returncode) == ("", 0)
