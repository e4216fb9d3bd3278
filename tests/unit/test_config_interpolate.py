"""Filling in ``${…}``."""

from __future__ import annotations

from pathlib import Path

import pytest

from audience_sync.config.interpolate import fill

ENVIRON = {"A": "one", "EMPTY": "", "DOLLAR": "${A}", "API_KEY": "sesame"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain $A {A} $ {A}", "plain $A {A} $ {A}"),
        ("${A}", "one"),
        ("<${A}-${A}>", "<one-one>"),
        ("${A:-two}", "one"),
        ("${B:-two}", "two"),
        ("${EMPTY:-two}", "two"),
        ("${B:-}", ""),
        ("${B:-a:-b}", "a:-b"),
        ("${B:-line\nline}", "line\nline"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("$${A} ${A}", "${A} one"),
        ("${DOLLAR}", "${A}"),  # what comes from outside is never filled in again
    ],
)
def test_fill(text: str, expected: str) -> None:
    filled = fill(text, ENVIRON, Path())
    assert (filled.text, filled.problems) == (expected, [])


@pytest.mark.parametrize(
    ("text", "outside", "secrets"),
    [
        ("${A}", True, []),
        ("${API_KEY}", True, ["sesame"]),
        ("${API_KEY:-x}", True, ["sesame"]),
        ("${B_KEY:-x}", False, []),
        ("$${API_KEY}", False, []),
    ],
)
def test_what_is_known_of_the_values(text: str, outside: bool, secrets: list[str]) -> None:
    filled = fill(text, ENVIRON, Path())
    assert (filled.outside, filled.secrets) == (outside, secrets)


def test_a_file_beside_the_configuration_and_an_absolute_one(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("  sesame\n")
    for name in ("key", str(tmp_path / "key")):
        filled = fill(f"<${{file:{name}}}>", {}, tmp_path)
        assert (filled.text, filled.secrets, filled.problems) == ("<sesame>", ["sesame"], [])


@pytest.mark.parametrize(
    "name",
    [
        "${CREDENTIALS}/key",
        "${PLACE:-credentials}/key",
        "${CREDENTIALS}/${NAME:-key}",
        "${CREDENTIALS}",
    ],
)
def test_variables_in_the_path_of_a_file(name: str, tmp_path: Path) -> None:
    """The path is told where the file is missing, so it must not be hidden as a secret."""
    place = "credentials" if "/" in name else "credentials/key"
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "key").write_text("sesame\n")
    filled = fill(f"<${{file:{name}}}>", {"CREDENTIALS": place}, tmp_path)
    assert (filled.text, filled.problems) == ("<sesame>", [])
    assert filled.values == filled.secrets == ["sesame"]


def test_a_variable_that_is_missing_in_the_path_of_a_file() -> None:
    filled = fill("${file:${CREDENTIALS_DIRECTORY}/key}", {}, Path())
    assert [text for text, _ in filled.problems] == [
        "environment variable CREDENTIALS_DIRECTORY is not set"
    ]
    assert filled.text == "${file:${CREDENTIALS_DIRECTORY}/key}"


@pytest.mark.parametrize(
    "text", ["${file:${A}", "${file:${A${B}}}", "${file:${file:x}}", "${B:-${A}}", "${${A}}"]
)
def test_nothing_else_can_be_nested(text: str) -> None:
    assert [problem for problem, _ in fill(text, ENVIRON, Path()).problems] != []


def test_every_problem_of_a_string_is_told() -> None:
    filled = fill("${X} ${Y} ${A}", ENVIRON, Path())
    assert [text for text, _ in filled.problems] == [
        "environment variable X is not set",
        "environment variable Y is not set",
    ]
    assert filled.text == "${X} ${Y} one"
