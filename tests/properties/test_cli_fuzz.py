"""Any command with any words: an exit code of the README, never a bug, never a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import rich_click as click
from hypothesis import example, given, settings
from hypothesis import strategies as st

from audience_sync.cli.main import EXIT_BUG, _run, cli

CODES = {0, 1, 2, 3, 4, 65, 69, 74, 75, 77, 78}
"""Without 70, and without 130, which is for signals."""

CONFIGURATION = """
store.url = "sqlite:///state.db"
schedule.every = "${EVERY:-1h}"
guard.max_initial = 3
[sources.files]
type = "files"
root = "."
[destinations.calls]
type = "ndjson"
path = "${CALLS:-calls.ndjson}"
[[audiences]]
name = "Größe & Co"
key = "vip"
source = "files"
query = "SELECT * FROM 'vip.csv' WHERE '${WORD:-x}' <> '' OR :now IS NOT NULL"
destinations = ["calls"]
[[audiences]]
name = "held"
source = "files"
query = "FROM 'held.csv'"
destinations = ["calls"]
[[computed_traits]]
name = "score"
source = "files"
query = "SELECT user_id, n AS value FROM 'vip.csv'"
destinations = ["calls"]
"""
WORDS = st.sampled_from(
    [
        *(
            "vip",
            "held",
            "score",
            "Größe & Co",
            "*",
            "v*",
            "[",
            "[!",
            "**",
            "",
            " ",
            "-",
            "--",
            ".",
        ),
        *(
            "calls",
            "table",
            "json",
            "csv",
            "parquet",
            "tell_false",
            "sqlite:///copy.db",
            "sqlite://",
        ),
        *("0", "1", "-1", "2147483647", "9" * 20, "1e9", "٣", "0x1", "1_0", "NaN", "1.5"),
        *("2026-01-31", "2026-01-31T06:00Z", "0001-01-01", "9999-12-31T23:59:59-14:00", "now"),
        *("20260131T0600Z-ab12", "20260131T0600Z", "00010101T0000Z-aa", "99991231T2359Z-ff"),
        *("1s", "0s", "90m", "9999999999h", "a1", "a1@x.io", "%s", "{}", "$HOME", "`id`", "'", '"'),
        *("x" * 300, "x/" * 3000, "/dev/full", "/dev/zero", "no/where", "..", "\udcff", "a\nb"),
        *("\x1b[2J", "\u202e", "日本", "ﬀ", ".", "--yes", "--json"),
    ]
)
TEXTS = WORDS | st.text(st.characters(exclude_characters="\0/", categories=None), max_size=8)


LEFT_OUT = ("init", "run", "sandbox")
"""The first writes the configuration anew, the others go on until a signal comes."""


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        elif name not in LEFT_OUT:
            yield (*path, name)


def parameters(path: tuple[str, ...]) -> list[click.Parameter]:
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    return command.params


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with some of its own options, each with any word, and any arguments."""
    path = draw(st.sampled_from(sorted(commands(cli))))
    words = [*path]
    for parameter in parameters(path):
        is_option = isinstance(parameter, click.Option)
        for _ in range(draw(st.integers(0, 1 if is_option else 2))):
            words += [max(parameter.opts, key=len)] if is_option else []
            takes_a_word = not (isinstance(parameter, click.Option) and parameter.is_flag)
            words += [draw(TEXTS)] if takes_a_word else []
    return words


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Two days of a store with something held, left behind as it was by every example."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        made = Path(name) / "made"
        made.mkdir()
        (made / "config.toml").write_text(CONFIGURATION)
        (made / "vip.csv").write_text("user_id,email,n\na1,a1@x.io,1\na2,a2@x.io,2\n")
        (made / "held.csv").write_text("user_id\n" + "".join(f"h{n}\n" for n in range(5)))
        os.chdir(made)
        try:
            assert run(["sync", "--now", "2026-01-30"])[0] == 3
            yield Path(name)
        finally:
            os.chdir(before)


def run(words: list[str]) -> tuple[object, str]:
    shown = io.BytesIO()
    stream = io.TextIOWrapper(shown, "utf-8", errors="backslashreplace")
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        try:
            code: object = _run(words)
        except SystemExit as left:
            code = left.code
    stream.flush()
    return code, shown.getvalue().decode(errors="replace")


def check(folder: Path, words: list[str]) -> None:
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(folder / "made", work)
    os.chdir(work)
    code, shown = run(words)
    assert code != EXIT_BUG, shown
    assert code in CODES, shown
    assert "Traceback" not in shown


@given(words=command_lines())
@example(words=["sync", "--plan", "00010101T0000Z-aa"])
@example(words=["diff", "--members", "9" * 20])
@example(words=["rejections", "--limit", "9" * 20])
def test_any_command_line_has_an_exit_code_of_its_own(folder: Path, words: list[str]) -> None:
    check(folder, words)


@given(words=st.lists(TEXTS | st.sampled_from(["sync", "--now", "--config", "-h"]), max_size=4))
def test_any_words_have_an_exit_code_of_their_own(folder: Path, words: list[str]) -> None:
    check(folder, words)


VARIABLES = st.dictionaries(
    st.sampled_from(
        [
            *("EVERY", "CALLS", "WORD", "AUDIENCE_SYNC_CONFIG", "TMPDIR", "HOME", "LOGNAME", "TZ"),
            *("COLUMNS", "TERM", "NO_COLOR", "FORCE_COLOR", "LANG", "HTTPS_PROXY", "SSL_CERT_FILE"),
        ]
    ),
    TEXTS.filter(lambda text: len(text) < 10 or not text.isdigit()),
    max_size=3,
)


@settings(max_examples=settings.default.max_examples // 3)
@given(variables=VARIABLES, words=st.sampled_from([["diff"], ["sync", "--all"], ["status"]]))
def test_any_environment_has_an_exit_code_of_its_own(
    folder: Path, variables: dict[str, str], words: list[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        check(folder, words)
