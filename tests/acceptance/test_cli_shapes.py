"""What the commands print: the shapes that people and programs rely on."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.program import NEW_STORE, TOP, Done, Program

ESCAPE = "\x1b"
DAY_1, DAY_2 = "2026-03-01T06:00Z", "2026-03-01T09:00Z"
HEAVY = ("sqlalchemy", "duckdb", "httpx", "pyarrow", "pydantic", "structlog", "alembic", "orjson")

UNUSED = '[sources.unused]\ntype = "files"\nroot = "."\n'
"""Warned about on every run: so each one has something to say on stderr."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    """Two days of two audiences, every command once."""
    program = Program(folder=tmp_path_factory.mktemp("shapes"))
    program.configure({"vip": ["calls"], "winback": ["calls"]}, more=UNUSED)
    program.members("vip", range(20))
    program.members("winback", range(5))
    done = {
        "diff": program.run("diff", "--now", DAY_1),
        "diff json": program.run("diff", "--json", "--members", "2", "--now", DAY_1),
        "check": program.run("check", "--json"),
    }
    assert not (program.folder / "state.db").exists()
    done["sync json"] = program.run("sync", "--json", "--now", DAY_1)
    program.members("vip", range(2, 21))
    done["diff ndjson"] = program.run("diff", "vip", "--format", "ndjson", "--now", DAY_2)
    done["diff csv"] = program.run("diff", "v*", "--format", "csv", "--now", DAY_2)
    done["sync"] = program.run("sync", "--now", DAY_2)
    done["status json"] = program.run("status", "--json")
    done["status"] = program.run("status")
    return done


def test_all_went_well_and_warnings_stood_on_stderr(runs: dict[str, Done]) -> None:
    for name, done in runs.items():
        assert done.code == 0, (name, done)
        assert "no audience uses it" in done.err, name
        assert len(done.err.replace(NEW_STORE, "").splitlines()) == 1, (name, done.err)


def test_no_terminal_no_escape_codes(runs: dict[str, Done]) -> None:
    assert [name for name, done in runs.items() if ESCAPE in done.out + done.err] == []


def test_diff_table(runs: dict[str, Done]) -> None:
    lines = runs["diff"].lines()
    assert lines[0].split() == ["vip", "new", "20", "members"]
    assert lines[1].split(None, 1) == ["calls", "initial, 20 calls, 1 request, about 1 s"]
    assert lines[2].split(None, 1) == ["guard", "ok (exits 0 %, limit 20 %)"]
    plan = lines[3].split()
    assert plan[0] == "plan"
    assert plan[1].startswith("20260301T0600Z-")
    assert lines[-1].startswith("exactly this: audience-sync sync vip winback --plan ")
    assert plan[1] in lines[-1]
    assert "person-" not in runs["diff"].out, "members only where they are asked for"


def test_diff_json(runs: dict[str, Done]) -> None:
    vip, winback = runs["diff json"].json()["audiences"]
    assert {k: vip[k] for k in ("audience", "from_seq", "members", "entered", "exited")} == {
        "audience": "vip",
        "from_seq": 0,
        "members": 20,
        "entered": 20,
        "exited": 0,
    }
    assert vip["held_for"] == []
    (place,) = vip["destinations"]
    assert (place["destination"], place["lane"], place["calls"]) == ("calls", "initial", 20)
    assert [shown["user_id"] for shown in vip["sample"]] == ["person-0000", "person-0001"]
    assert vip["plan"] != winback["plan"]
    assert vip["plan"] in runs["diff"].out, "the same at the same cycle time, in every form"


LISTED = {
    "person-0000": ("exited", {"email": "p0@private.example"}, None),
    "person-0001": ("exited", {"email": "p1@private.example"}, None),
    "person-0020": ("entered", None, {"email": "p20@private.example"}),
}


def test_diff_ndjson_lists_every_change(runs: dict[str, Done]) -> None:
    listed = [json.loads(line) for line in runs["diff ndjson"].lines()]
    keys = ["audience", "user_id", "change", "before", "after"]
    assert [list(line) for line in listed] == [keys] * 3
    assert {line["user_id"]: tuple(line[k] for k in keys[2:]) for line in listed} == LISTED


def test_diff_csv_lists_every_change(runs: dict[str, Done]) -> None:
    rows = list(csv.DictReader(io.StringIO(runs["diff csv"].out)))
    assert {
        row["user_id"]: (row["change"], _row(row["before"]), _row(row["after"])) for row in rows
    } == LISTED
    assert {row["audience"] for row in rows} == {"vip"}


def _row(cell: str) -> Any:
    return json.loads(cell) if cell else None


def test_sync_json(runs: dict[str, Done]) -> None:
    report = runs["sync json"].json()
    planned = {a["audience"]: a["plan"] for a in runs["diff json"].json()["audiences"]}
    assert {c["audience"]: c["plan"] for c in report["captures"]} == planned
    vip = report["captures"][0] | {"held_for": None}
    assert vip == {
        "audience": "vip",
        "outcome": "committed",
        "seq": 1,
        "entered": 20,
        "exited": 0,
        "updated": 0,
        "refused": 0,
        "plan": planned["vip"],
        "held_for": None,
    }
    shown = ("audience", "destination", "lane", "outcome", "accepted", "rejected", "skipped")
    assert [tuple(d[k] for k in (*shown, "remaining")) for d in report["deliveries"]] == [
        ("winback", "calls", "initial", "completed", 5, 0, 0, 0),
        ("vip", "calls", "initial", "completed", 20, 0, 0, 0),
    ]


def test_sync_text(runs: dict[str, Done]) -> None:
    delivery, summary = runs["sync"].lines()
    assert delivery.split() == ["vip", "incremental", "calls", "3", "accepted"]
    assert summary.startswith("1 delivered, ")
    assert summary.endswith(" s")


def test_status_json(runs: dict[str, Done]) -> None:
    shown = runs["status json"].json()
    vip = shown["audiences"][0]
    (place,) = vip.pop("destinations")
    assert vip.pop("next_due") == "2026-03-01T10:00:00Z"
    assert re.fullmatch(r"2\d{3}-\d\d-\d\dT[0-9:.]+Z", place.pop("up_to_date_at"))
    assert vip == {
        "key": "vip",
        "name": "vip",
        "kind": "audience",
        "state": "active",
        "members": 19,
        "seq": 2,
        "captured_at": "2026-03-01T09:00:00Z",
        "error": None,
        "held": None,
        "left_out": None,
    }
    assert place == {
        "name": "calls",
        "lane": "incremental",
        "state": "ok",
        "told_seq": 2,
        "to_seq": 2,
        "total": 3,
        "accepted": 3,
        "rejected": 0,
        "skipped": 0,
        "remaining": 0,
        "stand_rejected": 0,
        "eta": None,
        "held": None,
    }
    assert (shown["paused"], shown["gone"], shown["gone_destinations"]) == ([], [], [])


def test_status_text(runs: dict[str, Done]) -> None:
    head, vip, winback = runs["status"].lines()
    assert head.split() == ["AUDIENCE", "MEMBERS", "CAPTURED", "NEXT", "CALLS"]
    # The year stands there when it is another one.
    assert re.fullmatch(
        r"vip +19  1 Mar (2026 )?09:00 UTC \(.+\)  1 Mar (2026 )?10:00 UTC  ok", vip
    )
    assert winback.endswith("  ok")


def test_status_says_that_there_is_no_store(tmp_path: Path) -> None:
    """It looks like a first run, and tells everybody anew, also where a disk is gone."""
    program = Program(folder=tmp_path)
    program.configure()
    program.members("vip", range(3))
    absent = "no store at state.db: the next run makes a new one, and tells every member\n"
    before = program.files()
    for arguments in ((), ("--json",)):
        done = program.run("status", *arguments)
        assert (done.code, done.err) == (0, absent)
        assert "vip" in done.out
    assert program.files() == before
    program.run("sync")
    assert program.run("status").err == ""


def test_check_json_names_new_keys(runs: dict[str, Done]) -> None:
    checks = runs["check"].json()["checks"]
    assert [(c["what"], c["name"], c["ok"]) for c in checks] == [
        ("audience", "vip", True),
        ("audience", "winback", True),
        ("destination", "calls", True),
    ]
    assert checks[0]["text"].startswith("user_id, email")
    assert "new key" in checks[0]["text"]


def test_check_finds_what_is_wrong_and_writes_nothing(tmp_path: Path) -> None:
    program = Program(folder=tmp_path)
    places = '[destinations.calls]\ntype = "ndjson"\npath = "no/folder/calls.ndjson"\n'
    program.configure({"vip": ["calls"], "lost": ["calls"]}, destinations=places)
    program.members("vip", range(3))
    before = program.files()
    done = program.run("check")
    assert done.code == 65, "the file before the folder: precedence"
    assert [line.split()[:3] for line in done.lines() if line.startswith(("ok", "WRONG"))] == [
        ["ok", "audience", "vip"],
        ["WRONG", "audience", "lost"],
        ["WRONG", "destination", "calls"],
    ]
    assert program.files() == before


def test_init_writes_a_configuration_and_never_over_one(tmp_path: Path) -> None:
    program = Program(folder=tmp_path)
    first = program.run("init")
    assert (first.code, first.lines()[0]) == (0, "wrote config.toml")
    assert (tmp_path / "config.toml").read_text() == (TOP / "config.toml").read_text()
    (tmp_path / "config.toml").write_text("# mine")
    again = program.run("init", "--example")
    assert (again.code, again.out) == (2, "")
    assert "config.toml is there already" in again.err
    assert program.files() == {"config.toml": b"# mine"}


def test_config_schema(tmp_path: Path) -> None:
    done = Program(folder=tmp_path).run("config", "schema")
    assert done.code == 0
    assert {"audiences", "destinations", "sources"} <= json.loads(done.out)["properties"].keys()


def test_db_makes_a_store_and_says_which(tmp_path: Path) -> None:
    program = Program(folder=tmp_path)
    program.configure()
    none = program.run("db", "current", "--json").json()
    assert none["store"] is None
    assert not (tmp_path / "state.db").exists()
    assert program.run("db", "upgrade").out == f"schema {none['program']}\n"
    found = program.run("db", "current")
    assert found.out == f"store: {none['program']}   this version: {none['program']}\n"


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom audience_sync.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        f"finally:\n    print(*sorted(set({HEAVY!r}) & sys.modules.keys()), file=sys.stderr)\n"
    )
    for arguments in (["--help"], ["sync", "--help"], ["--version"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            cwd=tmp_path,
            env=Program(folder=tmp_path).environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        assert (done.returncode, done.stderr) == (0, "\n"), arguments
        assert done.stdout
        assert ESCAPE not in done.stdout


def test_version(tmp_path: Path) -> None:
    done = Program(folder=tmp_path).run("--version")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("audience-sync, version ")
