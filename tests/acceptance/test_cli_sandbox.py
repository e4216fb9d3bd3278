"""``audience-sync sandbox`` as a process: what it prints, who reaches it, how it ends."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from audience_sync.cli.sandbox import sandbox as command
from audience_sync.config.placeholder import OF_SANDBOX
from audience_sync.sandbox.faults import FAULTS
from audience_sync.sandbox.options import Options
from tests.acceptance.program import NEW_STORE, TOP, Program, people, wait_until

ANY_PORT = ("--listen", "127.0.0.1:0")


@contextmanager
def running(program: Program, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A sandbox that listens, and its address."""
    written = program.folder / "sandbox.toml"
    process = program.start("sandbox", *ANY_PORT, "--write", "sandbox.toml", *options)
    try:
        wait_until(lambda: written.exists() or process.poll() is not None)
        endpoint = tomllib.loads(written.read_text())["destinations"]["segment"]["endpoint"]
        yield process, endpoint.removesuffix("/v1")
    finally:
        process.kill()
        process.communicate()
        written.unlink(missing_ok=True)


def ended(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(folder=tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_it_prints_is_a_configuration_and_it_ends_well(
    program: Program, number: signal.Signals
) -> None:
    with running(program) as (process, base):
        written = (program.folder / "sandbox.toml").read_text()
        assert httpx.get(base).status_code == 200
        code, out, err = ended(process, number)
        assert (code, err) == (0, "")
        assert out.startswith(f"# The sandbox listens; what arrives is shown on {base}/ ")
        assert tomllib.loads(out) == tomllib.loads(written)
        with pytest.raises(httpx.ConnectError):
            httpx.get(base)


def test_a_connection_that_says_nothing_holds_up_no_stop(program: Program) -> None:
    with running(program) as (process, base):
        port = int(base.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(
                b"POST /v1/batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
            )
            assert ended(process, signal.SIGTERM)[0] == 0


def test_it_writes_over_its_own_file_only(program: Program) -> None:
    with running(program):
        of_before = (program.folder / "sandbox.toml").read_text()
    for mine in (f"{of_before}[store]\n", "ids = 1\n"):
        (program.folder / "mine.toml").write_text(mine)
        done = program.run("sandbox", *ANY_PORT, "--write", "mine.toml")
        assert (done.code, done.out) == (2, "")
        assert "--write: the file is there, and not of a sandbox" in done.err
        assert (program.folder / "mine.toml").read_text() == mine
    for own in (of_before, ""):
        (program.folder / "own.toml").write_text(own)
        _writes_anew(program, "own.toml")


def _writes_anew(program: Program, name: str) -> None:
    before = (program.folder / name).read_text()
    process = program.start("sandbox", *ANY_PORT, "--write", name)
    try:
        wait_until(lambda: (program.folder / name).read_text() != before)
    finally:
        process.kill()
        process.communicate()


def test_a_later_sandbox_takes_nobody_for_someone_of_an_earlier_one(program: Program) -> None:
    (program.folder / "people.csv").write_text("email\nana@example.com\n")

    def ana(*options: str) -> str:
        with running(program, "--people", "people.csv", *options) as (_, base):
            (people,) = httpx.get(f"{base}/sandbox/people.json").json()["crisp"].values()
        return str(people[0]["people_id"])

    assert ana() != ana()
    assert ana("--seed", "7") == ana("--seed", "7")


def test_sync_tells_it_and_it_shows_whom(program: Program) -> None:
    program.configure({"vip": ["segment"]}, destinations="")
    program.members("vip", range(30))
    with running(program, "--fail", "503:0.2", "--seed", "3") as (_, base):
        both = ("--config", "config.toml", "--config", "sandbox.toml")
        done = program.run(*both, "sync", "--all")
        assert done.code == 0, done.err
        program.members("vip", range(10, 30))
        done = program.run(*both, "sync", "--all")
        assert done.code == 0, done.err
        found = httpx.get(f"{base}/sandbox/people.json").json()["segment"]
        told = {user["user_id"]: user["traits"]["vip"] for user in found}
        assert {user for user, inside in told.items() if inside} == people(range(10, 30))
        assert set(told) == people(range(30))


def test_its_lines_can_be_included_without_a_warning(program: Program) -> None:
    assert {Options().write_key, Options().crisp_key} == OF_SANDBOX
    program.configure({"vip": ["segment", "crisp"]}, destinations="")
    configured = (program.folder / "config.toml").read_text()
    (program.folder / "config.toml").write_text(f'include = ["sandbox.toml"]\n{configured}')
    program.members("vip", range(3))
    with running(program) as (_, base):
        done = program.run("sync")
        assert (done.code, done.err) == (0, NEW_STORE)
        found = httpx.get(f"{base}/sandbox/people.json").json()
        (crisp,) = found["crisp"].values()
        assert {u["user_id"]: u["traits"]["vip"] for u in found["segment"]} == dict.fromkeys(
            people(range(3)), True
        )
        assert {p["data"]["user_id"]: p["data"]["vip"] for p in crisp} == dict.fromkeys(
            people(range(3)), True
        )


def test_existing_people(program: Program) -> None:
    (program.folder / "people.csv").write_text(
        "email,nickname,phone,plan\nana@example.com,Ana,+4930,gold\nbo@example.com,,,\n"
    )
    with running(program, "--people", "people.csv", "--website-id", "w1") as (_, base):
        found = httpx.get(f"{base}/sandbox/people.json").json()["crisp"]["w1"]
        shown = {p["email"]: (p["person"], p["data"]) for p in found}
        assert shown == {
            "ana@example.com": ({"nickname": "Ana", "phone": "+4930"}, {"plan": "gold"}),
            "bo@example.com": ({"nickname": "bo"}, {}),
        }


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("p.csv", "email\nana\n", "row 1: no e-mail"),
        ("p.csv", "email\na@x.org\nA@x.org\n", "row 2: its e-mail stands there twice"),
        ("p.csv", "email,Plan\na@x.org,gold\n", "row 1: the key 'Plan'"),
        ("p.ndjson", '{"email":"a@x.org"}\n{"email"\n', "row 2: no e-mail"),
        ("p.ndjson", '{"email":"a@x.org","tags":["a"]}\n', "row 1: the value of 'tags'"),
        ("p.csv", "email\n\udcff\n", "cannot be read"),
    ],
)
def test_people_that_crisp_would_not_have(
    program: Program, name: str, text: str, reason: str
) -> None:
    (program.folder / name).write_text(text, errors="surrogateescape")
    done = program.run("sandbox", *ANY_PORT, "--people", name)
    assert (done.code, done.out) == (2, "")
    assert reason in done.err


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (("--listen", "0.0.0.0:0"), 2, "other machines would reach the sandbox"),
        (("--listen", "192.0.2.1:0", "--yes"), 1, "--listen: this machine has no address"),
        (("--listen", "localhost"), 2, "write an address and a port"),
        (("--listen", "127.0.0.1:99999"), 2, "the port must be"),
        (("--fail", "200:1"), 2, "such as 429:0.1"),
        (("--fail", "sloww:1"), 2, "no fault sloww"),
        (("--rate", "0"), 2, "per second"),
        (("--crisp-key", "key"), 2, "with a colon between them"),
        (("--write-key", ""), 2, "is empty"),
        (("--write-key", "two words"), 2, "characters that no key has"),
        (("--website-id", "a/b"), 2, "is no id of a website"),
        (("--quota", "-1"), 2, "--quota"),
        ((*ANY_PORT, "--write", "no/such/folder.toml"), 2, "--write: the file cannot be written"),
    ],
)
def test_wrong_options(program: Program, options: tuple[str, ...], code: int, reason: str) -> None:
    done = program.run("sandbox", *options)
    assert done.code == code
    assert reason in " ".join(done.err.split()).replace("│ ", "")
    assert "Traceback" not in done.err


def test_the_document_names_every_option_and_failure() -> None:
    document = (TOP / "docs" / "sandbox.md").read_text()
    tables = document.partition("## Options")[2].partition("\n## ")[0]
    named = re.findall(r"`(--[\w-]+)", "\n".join(re.findall(r"^\| (.+?) \|", tables, re.MULTILINE)))
    options = {name for parameter in command.params for name in parameter.opts}
    assert set(named) | {"--yes"} == options
    failures = re.findall(r"^\| ((?:`[a-z][a-z-]+`(?:, )?)+) \|", tables, re.MULTILINE)
    assert {name for row in failures for name in re.findall(r"[a-z-]+", row)} == set(FAULTS)


def test_a_port_that_is_taken(program: Program) -> None:
    with running(program) as (_, base):
        port = base.rpartition(":")[2]
        done = program.run("sandbox", "--listen", f"127.0.0.1:{port}")
        assert done.code == 1
        assert f"--listen: port {port} of 127.0.0.1 is taken" in done.err


def test_others_may_reach_it_when_told(program: Program) -> None:
    with running(program, "--listen", "0.0.0.0:0", "--yes") as (_, base):
        assert base.startswith("http://127.0.0.1:")
        assert httpx.get(f"{base}/sandbox/counts.json").status_code == 200


def test_strange_keys_are_written_so_that_they_are_read(program: Program) -> None:
    keys: dict[str, Any] = {"--write-key": 'a"b\\${HOME}', "--crisp-key": "id:'${k}"}
    with running(program, *(word for pair in keys.items() for word in pair)) as (_, base):
        assert (
            httpx.post(
                f"{base}/v1/identify",
                auth=(keys["--write-key"], ""),
                content=json.dumps({"userId": "u1"}),
            ).status_code
            == 200
        )
        program.configure({"vip": ["segment", "crisp"]}, destinations="")
        program.members("vip", range(3))
        done = program.run("--config", "config.toml", "--config", "sandbox.toml", "sync")
        assert done.code == 0, done.err
