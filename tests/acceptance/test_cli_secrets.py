"""No secret leaves the configuration, and no member is named where nobody asked for members."""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import structlog

from audience_sync import logs
from tests.acceptance.program import Done, Program, people, segment
from tests.fakes.tracking_api import Served, serve

KEY = "Wk7/aGk+9zQ=x&y"
"""Different in every form in which it may travel."""

FORMS = {
    KEY,
    quote(KEY, safe=""),
    *(b64encode(text.encode()).decode().rstrip("=") for text in (KEY, f"{KEY}:")),
}
POISON = "person-0003"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "poison").write_text(POISON)
    poison = folder / "poison"
    with serve(log=folder / "log", write_key=KEY, poison_file=poison) as served:
        yield served


@pytest.fixture(scope="module")
def runs(server: Served, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Done, str]]:
    """Runs with a key that is refused, accepted, and never asked; what each showed and left."""
    folder = tmp_path_factory.mktemp("secrets")
    program = Program(folder=folder, variables={"WRITE_KEY": KEY})
    program.members("vip", range(10))
    found: dict[str, tuple[Done, str]] = {}

    def run(name: str, *arguments: str) -> None:
        done = program.run(*arguments)
        left = b"".join(program.files().values()).decode(errors="replace")
        found[name] = done, done.out + done.err + left

    program.configure({"vip": ["seg"]}, destinations=segment("seg", server.faulty("401")))
    run("refused", "sync", "--json")
    run("status", "status")
    run("check", "check")
    program.configure({"vip": ["seg"]}, destinations=segment("seg", server.endpoint))
    run("accepted", "sync")
    return found


def test_the_runs_were_what_they_should_be(runs: dict[str, tuple[Done, str]]) -> None:
    refused = runs["refused"][0]
    assert refused.code == 77
    assert "key refused (401)" in refused.out
    assert "! seg  paused  seg: key refused (401) since " in runs["status"][0].out
    assert "nothing lost, 10 members wait" in runs["status"][0].out
    assert runs["accepted"][0].code == 0
    assert "9 accepted, 1 rejected" in runs["accepted"][0].out


def test_no_form_of_the_key_is_anywhere(runs: dict[str, tuple[Done, str]]) -> None:
    assert len(FORMS) == 4
    everywhere = {name: text for name, (_, text) in runs.items()}
    assert [(n, form) for n, text in everywhere.items() for form in FORMS if form in text] == []


def test_no_member_is_named(runs: dict[str, tuple[Done, str]]) -> None:
    shown = "".join(done.out + done.err for done, _ in runs.values())
    assert POISON in people(range(10))
    assert "person-" not in shown
    assert "private.example" not in shown


def test_a_log_line_is_cleaned_last(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever a library logs, in whatever it wraps it, and however it is quoted."""
    before = logging.getLogger().handlers[:], logging.getLogger().level
    secret = 'pa"ss\\wörd/1'
    try:
        logs.configure({secret})
        wrapped = {"headers": [f"Basic {b64encode(f'{secret}:'.encode()).decode()}"]}
        logging.getLogger("library").warning("asked %s with %s", quote(secret, safe=""), wrapped)
        structlog.get_logger().warning("plain", nested={"key": [secret]})
        logs.hide({"rotated-key/2"})
        structlog.get_logger().warning(f"{secret} became {quote('rotated-key/2', safe='')}")
        try:
            raise ValueError(f"person-0001 {secret}")
        except ValueError:
            logging.getLogger("library").exception("it broke")
            structlog.get_logger().error("it broke too", exc_info=True)
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers[:], level = before
        logging.getLogger().setLevel(level)
    err = capfd.readouterr().err
    assert len(err.splitlines()) == 5
    assert err.count("[secret]") == 5
    assert "rotated-key" not in err
    assert err.count("ValueError at test_cli_secrets.py:") == 2
    for text in ("ss\\wörd", "ss\\\\w", "person-0001", "Traceback", "cGEic3N"):
        assert text not in err
