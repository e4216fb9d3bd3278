"""Any text or bytes: a configuration, or a ConfigError that names the place; nothing else."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audience_sync.config.load import load
from audience_sync.config.locate import lines
from audience_sync.config.places import KeyPath
from audience_sync.errors import ConfigError

SECRET = "canary5f3a91"
ENVIRON = {"CANARY": SECRET}
PLACE = re.compile(r"config\.toml(:\d+){0,2}: \S")

WORDS = (
    "store url keep schedule every timezone guard max_exits max_entries floor engine threads spill "
    "memory_limit sources shop type root destinations calls path write_key endpoint integrations "
    "rate reserve batch deadline audiences computed_traits name key source query query_file tell "
    "tags state on_retire include "
    "files ndjson segment [key] 0"
)
LITERALS = (
    "files|ndjson|segment|shop|calls|3h|2h..3h|0 0 * * 1|0 0 31 2 1|UTC|20%|5/s|1GB|identify|"
    "entered|sqlite:///x.db|postgresql://u:p@h:1/d|*.x|${CANARY}|x${CANARY}|${NO}|"
    "${file:/dev/null}|https://h|http://[|\0||VIP|2026"
)
KEYS = st.sampled_from(WORDS.split(" ")) | st.text(max_size=6)
TEXTS = st.sampled_from(LITERALS.split("|")) | st.text(max_size=12)
NAMES = st.sampled_from(["shop", "calls"]) | KEYS
SCALARS = st.one_of(
    TEXTS, st.booleans(), st.integers(), st.floats(), st.dates(), st.datetimes(), st.times()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
SEGMENT = st.fixed_dictionaries(
    {"type": st.just("segment"), "write_key": TEXTS},
    optional=dict.fromkeys(("endpoint", "rate", "reserve", "batch", "deadline"), SCALARS)
    | {"integrations": VALUES, "calls": VALUES},
)
AUDIENCE = st.fixed_dictionaries(
    {"name": TEXTS, "source": TEXTS, "query": TEXTS, "destinations": st.lists(TEXTS, max_size=3)},
    optional=dict.fromkeys(
        ("key", "every", "guard", "tell", "query_file", "tags", "state"), VALUES
    ),
)
DOCUMENTS = st.fixed_dictionaries(
    {
        "sources": st.dictionaries(NAMES, st.just({"type": "files", "root": "x"}) | VALUES),
        "destinations": st.dictionaries(NAMES, SEGMENT | VALUES, max_size=3),
        "audiences": st.lists(AUDIENCE, max_size=3) | VALUES,
        "computed_traits": st.lists(AUDIENCE, max_size=2) | VALUES,
    },
    optional=dict.fromkeys(("store", "schedule", "guard", "engine", "include", "x"), VALUES),
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def check(folder: Path, data: bytes) -> bool:
    """Whether ``data`` was accepted; refused, every problem must name its place."""
    path = folder / "config.toml"
    path.write_bytes(data)
    problems: tuple[str, ...] | None = None
    try:
        load([path], ENVIRON)
    except ConfigError as error:
        problems = error.problems
    assert problems != ()
    for problem in problems or ():
        assert PLACE.match(problem.removeprefix(f"{folder}/")), problem
        assert problem.isprintable()
        assert SECRET not in problem
    return problems is None


def toml(value: Any) -> str:
    """``value`` as TOML; tables and arrays of them inline, but for the first level."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",\n".join(toml(inner) for inner in value) + "]"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else str(value.isoformat())


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@given(st.binary(max_size=200))
def test_any_bytes(folder: Path, data: bytes) -> None:
    check(folder, data)


@given(st.text(max_size=200))
def test_any_text(folder: Path, text: str) -> None:
    check(folder, text.encode("utf-8", "surrogatepass"))


@given(st.lists(st.sampled_from([*"[]{}=.,\"'#\n\\ a1", '"""', "'''", "\r\n", "a=", "[["])))
def test_any_mix_of_what_toml_is_made_of(folder: Path, parts: list[str]) -> None:
    check(folder, "".join(parts).encode())


@given(DOCUMENTS)
def test_any_document_with_our_keys(folder: Path, document: dict[str, Any]) -> None:
    lines = [f"{quoted(key)} = {toml(value)}\n" for key, value in document.items()]
    check(folder, "".join(lines).encode())


@given(DOCUMENTS)
def test_every_key_of_any_document_is_located(document: dict[str, Any]) -> None:
    text, expected = "", {}
    for key, value in document.items():
        expected[key] = text.count("\n") + 1
        text += f"{quoted(key)} = {toml(value)}\n"
    found = lines(text)
    assert set(found) == set(key_paths(document))
    assert {key: found[key,] for key in document} == expected


def key_paths(value: Any, around: KeyPath = ()) -> Iterator[KeyPath]:
    inner: Any = value.items() if isinstance(value, dict) else ()
    for key, one in enumerate(value) if isinstance(value, list) else inner:
        yield (*around, key)
        yield from key_paths(one, (*around, key))


GOOD = """include = []
store = {url = "sqlite:///s.db", keep = "30d"}
schedule = {every = "2h..3h", timezone = "UTC"}
guard = {max_exits = "20%", floor = 3}
[sources.shop]
type = "files"
root = "data"
[destinations.segment]
type = "segment"
write_key = "${CANARY}"
rate = "5/s"
[[audiences]]
name = "VIP"
source = "shop"
query = \"""
SELECT 1\"""
destinations = ["segment"]
tell = ["entered"]
"""


def test_the_configuration_that_is_damaged_below_is_good(folder: Path) -> None:
    assert check(folder, GOOD.encode())


@settings(max_examples=200)
@given(
    st.integers(0, len(GOOD)),
    st.integers(0, 12),
    st.text(max_size=4) | st.sampled_from(["\n", '"', "[", "= 3\n", "${CANARY}", "${", "\0"]),
)
def test_a_damaged_configuration(folder: Path, at: int, cut: int, new: str) -> None:
    check(folder, (GOOD[:at] + new + GOOD[at + cut :]).encode("utf-8", "surrogatepass"))
