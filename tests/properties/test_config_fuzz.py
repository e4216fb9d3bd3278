"""Any text or bytes: a configuration, or a ConfigError that names the place; nothing else."""

from __future__ import annotations

import copy
import functools
import json
import math
import re
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import make_url

from audience_sync.config.address import canonical, parse
from audience_sync.config.load import Loaded, load
from audience_sync.config.locate import lines
from audience_sync.config.model import Config, SegmentDestination
from audience_sync.config.places import KeyPath
from audience_sync.destinations.transport import basic
from audience_sync.errors import ConfigError

NOW = datetime(2026, 1, 31, 6, tzinfo=UTC)
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


def check(folder: Path, data: bytes, environ: Mapping[str, str] = ENVIRON) -> bool:
    """Whether ``data`` was accepted; refused, every problem must name its place."""
    path = folder / "config.toml"
    path.write_bytes(data)
    problems: tuple[str, ...] = ()
    loaded: Loaded | None = None
    try:
        loaded = load([path], environ)
    except ConfigError as error:
        problems = error.problems
    assert bool(problems) == (loaded is None)
    for problem in problems:
        assert PLACE.match(problem.removeprefix(f"{folder}/")), problem
        assert problem.isprintable()
        assert SECRET not in problem
    if loaded is not None:
        check_usable(loaded.config)
    return loaded is not None


def check_usable(config: Config) -> None:
    """What is accepted can be worked with: nothing of it fails only when it is needed."""
    assert make_url(config.store.url).get_backend_name() in {"sqlite", "postgresql"}
    for audience in config.audiences:
        assert audience.cadence.next_after(NOW, 0.5) > NOW
        assert audience.source in config.sources
        assert audience.query.strip()
    for destination in config.destinations.values():
        if isinstance(destination, SegmentDestination):
            assert parse(canonical(destination.endpoint)).host
            assert basic(destination.write_key, "")
        assert 0 < destination.rate * destination.reserve < math.inf


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


WHOLE = """include = ["*.none"]
store = {url = "sqlite:///s.db", keep = "30d"}
schedule = {every = "2h..3h", timezone = "Europe/Berlin"}
guard = {max_exits = "20%", max_exits_24h = "40%", max_entries = "200%", floor = 3}
engine = {memory_limit = "200MB", threads = 2, spill = "spill"}
[sources]
shop = {type = "files", root = "data", freshness = {max_age = "6h"}}
[sources.warehouse]
type = "sql"
url = "postgresql://me:${CANARY}@127.0.0.1/db"
connect_args = {sslmode = "verify-full", password = "${CANARY}", timeout = 3}
timeout = "15m"
freshness = {query = "SELECT 1", max_age = "6h"}
[destinations]
calls = {type = "ndjson", path = "calls.ndjson", calls = ["identify", "track"], rate = "9/s"}
[destinations.segment]
type = "segment"
write_key = "${CANARY}"
endpoint = "https://events.eu1.segmentapis.com/v1"
integrations = {All = false, Crisp = {deep = [1, {er = "x"}]}}
rate = "600/min"
reserve = "20%"
concurrency = 8
batch = 500
deadline = "30s"
[[audiences]]
name = "VIP"
key = "vip"
source = "shop"
query = "FROM 'x.csv'"
destinations = ["segment", "calls"]
every = "0 */3 * * 1-5"
guard = {max_exits = "50%", max_initial = 9}
tell = ["entered", "exited", "updated"]
state = "paused"
on_retire = "leave"
owner = "ann"
tags = ["a", "b"]
[[computed_traits]]
name = "Lifetime Value"
source = "warehouse"
query = "SELECT 1"
destinations = ["calls"]
state = "active"
"""
DOCUMENT = tomllib.loads(WHOLE)


@st.composite
def changed(draw: st.DrawFn) -> dict[str, Any]:
    """The whole configuration with one to three parts replaced, dropped, renamed or added."""
    document = copy.deepcopy(DOCUMENT)
    for _ in range(draw(st.integers(1, 3))):
        *around, key = draw(st.sampled_from(list(key_paths(document))))
        inside = functools.reduce(lambda value, part: value[part], around, document)
        what = draw(st.sampled_from(["replace", "drop", "rename", "add"]))
        if what == "replace":
            inside[key] = draw(VALUES)
        elif what == "drop":
            del inside[key]
        elif isinstance(inside, list):
            inside.append(inside[key])
        else:
            value = inside.pop(key) if what == "rename" else draw(VALUES)
            inside[draw(KEYS)] = value
        if not document:
            break
    return document


def as_toml(document: Mapping[str, Any]) -> bytes:
    text = "".join(f"{quoted(key)} = {toml(value)}\n" for key, value in document.items())
    return text.encode("utf-8", "surrogatepass")


def test_the_whole_configuration_is_good(folder: Path) -> None:
    assert check(folder, WHOLE.encode())
    assert check(folder, as_toml(DOCUMENT))


@settings(max_examples=2 * settings.default.max_examples)
@given(changed())
def test_a_whole_configuration_that_was_changed(folder: Path, document: dict[str, Any]) -> None:
    check(folder, as_toml(document))


TEXT_PATHS = [
    path
    for path in key_paths(DOCUMENT)
    if isinstance(functools.reduce(lambda value, part: value[part], path, DOCUMENT), str)
]


@settings(max_examples=2 * settings.default.max_examples)
@given(
    path=st.sampled_from(TEXT_PATHS),
    before=TEXTS,
    value=st.text(st.characters(exclude_characters="\0", categories=None), max_size=12),
    after=TEXTS,
)
def test_no_value_of_the_environment_is_told(
    folder: Path, path: KeyPath, before: str, value: str, after: str
) -> None:
    """Whatever it is and wherever it is put, also where it makes no sense."""
    document: Any = copy.deepcopy(DOCUMENT)
    *around, key = path
    inside = functools.reduce(lambda found, part: found[part], around, document)
    inside[key] = before + "${CANARY}" + after
    check(folder, as_toml(document), {"CANARY": SECRET + value})


FRAGMENTS = ("${A", "${", "$${", "?password", "&token=", "://a:", "@", "your_", "x", "[", "<", "1h")


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_a_long_value_takes_no_longer_than_its_length(folder: Path, fragment: str) -> None:
    """Some patterns took minutes for as much. Seconds of the processor, as others may use it."""
    long = fragment * (200_000 // len(fragment))
    started = time.process_time()
    for old in ("sqlite:///s.db", "${CANARY}", "2h..3h", "VIP", "SELECT 1", "entered", "5/s"):
        check(folder, GOOD.replace(old, long).encode())
        check(folder, GOOD.replace(old, "${LONG}").encode(), {"LONG": long, **ENVIRON})
    assert time.process_time() - started < 20
