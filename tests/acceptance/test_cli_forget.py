"""``forget``: nothing in the store's files names the user, who is never told again (P21)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from audience_sync.store import chunks
from tests.acceptance.program import Program, people, segment, told, wait_until
from tests.fakes.tracking_api import Served, serve

WHO, MAIL = "person-0007", "p7@private.example"
SCHEMA = "SELECT count(*) FROM forgotten"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    program = Program(folder=tmp_path, variables={"WRITE_KEY": "test"})
    program.configure({"vip": ["calls"], "old": ["calls"]})
    program.members("vip", range(20))
    program.members("old", range(5))
    return program


def in_store(program: Program) -> bytes:
    """Every byte of its files, and what is compressed in them."""
    files = [content for name, content in program.files().items() if name.startswith("state.db")]
    assert files
    rows = [chunks.decode(payload) for (payload,) in program.stored("SELECT payload FROM chunk")]
    return b"".join([*files, *(str(batch.to_pylist()).encode() for batch in rows)])


def test_no_trace_is_left_and_nobody_is_told_again(program: Program) -> None:
    assert program.run("sync", "--all").code == 0
    told_before = len(program.calls())
    for trace in (WHO, MAIL):
        assert trace.encode() in in_store(program)
    done = program.run("forget", WHO, "--yes", "--reason", "request 12")
    assert (done.code, done.err) == (0, "")
    assert done.lines()[0] == f"{WHO}  in the log of vip"
    assert "what calls was told stays there" in done.out
    assert "source keeps its rows" in done.out
    for trace in (WHO, MAIL):
        assert trace.encode() not in in_store(program)

    # One of 20 rows is more than max_refused_rows, but it is no fault of the source.
    again = program.run("sync", "--all", "--json")
    assert again.code == 0
    assert [c["outcome"] for c in again.json()["captures"]] == ["unchanged", "unchanged"]
    assert [c["refused"] for c in again.json()["captures"]] == [0, 0]
    program.members("vip", range(22))
    program.members("old", range(4, 9))
    diff = program.run("diff", "vip", "old", "--format", "ndjson")
    assert WHO not in diff.out
    assert "person-0020" in diff.out
    assert program.run("sync", "--all").code == 0
    new = program.calls()[told_before:]
    assert told(new) == dict.fromkeys(people([20, 21]), True)
    expected = dict.fromkeys(people([5, 6, 8]), True) | dict.fromkeys(people(range(4)), False)
    assert told(new, "old") == expected
    for trace in (WHO, MAIL):
        assert trace.encode() not in in_store(program)
    status = {a["key"]: a["members"] for a in program.run("status", "--json").json()["audiences"]}
    assert status == {"vip": 21, "old": 4}


def test_the_refused_rows_say_why(program: Program) -> None:
    program.run("sync", "--all")
    program.run("forget", WHO, "--yes")
    program.members("vip", range(21))
    program.run("sync", "--all")
    (newest,) = program.stored("SELECT refused FROM snapshot ORDER BY id DESC LIMIT 1")
    assert json.loads(newest[0]) == {"asked to be forgotten": 1}


def test_whoever_is_not_found_is_remembered(program: Program) -> None:
    done = program.run("forget", "person-0050", WHO, "--yes")
    assert done.code == 0
    assert done.lines()[0] == "person-0050  not in the log; remembered all the same"
    assert program.stored(SCHEMA) == [(2,)]
    program.members("vip", [7, 8, 50])
    assert program.run("sync", "--all").code == 0
    assert told(program.calls()) == dict.fromkeys(people([8]), True)
    for trace in (WHO, "person-0050"):
        assert trace.encode() not in in_store(program)


def test_by_email(program: Program) -> None:
    program.run("sync", "--all")
    before = len(program.calls())
    named = program.run("forget", MAIL, "--yes", "--reason", f"{MAIL} wrote to us")
    assert named.code == 2
    program.run("pause", "vip", "--yes", "--reason", f"as P7@private.example wishes, {MAIL}")
    program.run("resume", "vip", "--yes")
    done = program.run("forget", MAIL.upper(), MAIL, "nobody@private.example", "--yes")
    assert (done.code, done.err) == (0, "")
    assert done.lines()[:4] == [
        f"{MAIL.upper()}  is the e-mail of {WHO}",
        f"{MAIL}  is the e-mail of {WHO}",
        f"{WHO}  in the log of vip",
        "nobody@private.example  not in the log; remembered all the same",
    ]
    for trace in (WHO, MAIL):
        assert trace.encode() not in in_store(program)
    assert b"P7@private" not in in_store(program)
    assert program.stored(SCHEMA) == [(2,)]
    program.run("sync", "--all")
    assert len(program.calls()) == before


def test_an_email_that_is_a_user_id_is_that(program: Program) -> None:
    (program.folder / "vip.csv").write_text(f"user_id,email\n{MAIL},x@y.example\nu1,{MAIL}\n")
    program.run("sync", "vip")
    done = program.run("forget", MAIL, "--yes")
    assert done.lines()[0] == f"{MAIL}  in the log of vip"
    assert b"u1" in in_store(program)


def test_an_audience_that_is_no_longer_configured(program: Program) -> None:
    program.run("sync", "--all")
    program.configure({"vip": ["calls"]})
    done = program.run("forget", "person-0003", "--yes")
    assert done.lines()[0] == "person-0003  in the log of old, vip"
    assert b"person-0003" not in in_store(program)


def test_it_asks_first(program: Program) -> None:
    program.run("sync", "--all")
    refused = program.run("forget", WHO)
    assert refused.code == 2
    assert "say it with --yes" in refused.err
    assert program.on_terminal("forget", WHO, typed="n\n").code == 1
    assert program.stored(SCHEMA) == [(0,)]
    assert program.on_terminal("forget", WHO, typed="y\n").code == 0
    assert program.stored(SCHEMA) == [(1,)]


@pytest.mark.parametrize(
    "arguments",
    [(), ("",), (" ",), ("a\nb",), (WHO, "--reason", f"for {WHO}"), (WHO, "--reason", WHO)],
)
def test_what_cannot_be_done(program: Program, arguments: tuple[str, ...]) -> None:
    done = program.run("forget", *arguments, "--yes")
    assert done.code == 2
    assert "Traceback" not in done.err
    assert "state.db" not in program.files()


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(log=tmp_path_factory.mktemp("api") / "log", latency=0.2) as served:
        yield served


def test_a_change_in_flight_must_arrive_first(program: Program, served: Served) -> None:
    """One call after another takes far longer than ``forget``, until it is stopped."""
    late, everyone = "person-0199", range(200)
    program.members("vip", everyone)
    slow = segment("seg", served.endpoint, "concurrency = 1\nbatch = 1\n")
    program.configure({"vip": ["seg"]}, destinations=slow)
    process = program.start("sync")
    wait_until(lambda: served.log.stat().st_size > 0)
    refused = program.run("forget", late, "--yes")
    process.terminate()
    process.communicate(timeout=30)
    assert refused.code == 75, refused
    assert "another process is at work on deliver:seg:initial" in refused.err
    assert "nothing was changed" in refused.err
    assert late not in refused.err
    assert 0 < len(served.calls()) < 200

    assert program.run("forget", late, "person-0000", "--yes").code == 0
    program.configure({"vip": ["seg"]}, destinations=segment("seg", served.endpoint))
    done = program.run("sync", "--json")
    assert done.code == 0, done
    (delivery,) = done.json()["deliveries"]
    assert delivery["remaining"] == 0
    users = [call["userId"] for call in served.calls()]
    assert sorted(users) == sorted(people(everyone) - {late})  # once each
    (books,) = program.stored("SELECT state, accepted, total FROM span")
    assert books == ("completed", 199, 199)
