"""The promises' list of bad configuration, item by item: 78, the place, what to do, nothing done.

Each row breaks a good configuration in one way and runs ``sync``, which would capture and tell.
Values in depth: ``tests/unit/test_config_problems.py``.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.program import NEW_STORE, Done, Program
from tests.fakes.tracking_api import serve

KEY = "Wk7canary5f3a91"
"""May be in no output, wherever it was put."""

VARIABLES = {"WRITE_KEY": KEY, "EMPTY": "", "UNCHANGED": "changeme", "LONG": KEY * 100}

GOOD = """\
[store]
url = "sqlite:///state.db"
[schedule]
every = "1h"
[guard]
max_exits = "20%"
[sources.shop]
type = "files"
root = "."
[destinations.calls]
type = "ndjson"
path = "calls.ndjson"
[destinations.segment]
type = "segment"
write_key = "${WRITE_KEY}"
endpoint = "http://127.0.0.1:PORT/v1"
[[audiences]]
name = "Winback"
source = "shop"
query = "FROM 'vip.csv'"
destinations = ["calls", "segment"]
"""
AUDIENCE = GOOD[GOOD.index("[[audiences]]") :]
TRAIT = AUDIENCE.replace("audiences", "computed_traits")

FILES = {
    "vip.csv": b"user_id\nperson-0001\n",
    "text.key": KEY.encode(),
    "binary.key": b"\x89PNG\r\n\xff\xfe",
    "empty.key": b"\n",
    "typo.toml": b'[[audiences]]\nname = "Other"\nsourc = "shop"\n',
}

DATABASE = '[sources.db]\ntype = "sql"\n{}\n[destinations.calls]'
"""A source more, in lines 10 to 12."""

KEY_AT = "15: destinations.segment.write_key: "
PLACE_AT = "16: destinations.segment.endpoint: "
EVERY_AT = "4: schedule.every: "
NAME_AT = "18: audiences[0].name: "
SECOND_AT = "23: audiences[1].name: "

Row = tuple[str, str, str, str]
"""What stands there, what instead, the place (after ``config.toml:``) and the fault, what to do."""

ROWS: dict[str, Row] = {
    "empty": (GOOD, " \n", " is empty", "it needs at least one source, destination, audience"),
    "only a comment": (GOOD, "# x\n", "1: audiences: there are none", "add [[audiences]] or"),
    "syntax, an open string": ('"1h"', '"1h', "4:12: not TOML: illegal character", "'\\n'"),
    "syntax, no quotes": ('"1h"', "1h", "4:10: not TOML: expected newline", "or end of document"),
    "syntax, a key twice": ('"1h"', '"1h"\nevery = "2h"', "5:13: not TOML: cannot", "overwrite"),
    "syntax, no value": ('"1h"', "", "4:9: not TOML: invalid value", "strings need quotes"),
    "not UTF-8": ("Winback", "\udcff", "18: is not UTF-8 text", "save it as UTF-8"),
    "a NUL": ("Winback", "\0", "18: holds a NUL byte", "save it as UTF-8 text"),
    "too deep": ('"1h"', "[" * 40 + "]" * 40, " has tables or arrays more than", "32 levels deep"),
    "unknown key": ("every", "evry", "4: schedule.evry: unknown key", 'did you mean "every"?'),
    "unknown table": ("[guard]", "[gard]", "5: gard: unknown key", 'did you mean "guard"?'),
    "unknown key, of another table": (
        '"Winback"',
        '"Winback"\nmax_exits = "9%"',
        "19: audiences[0].max_exits: unknown key",
        "write guard = { max_exits = … }",
    ),
    "unknown key, in an included file": (
        "[store]",
        'include = ["typo.toml"]\n[store]',
        "typo.toml:3: audiences[0].sourc: unknown key",
        'did you mean "source"?',
    ),
    "unknown type": ('"files"', '"sqll"', '8: sources.shop.type: unknown type "sqll"', "known: "),
    "wrong type": ('"1h"', "1", EVERY_AT + "expected a string", "found an integer"),
    "wrong type, no table": (
        "[store]\nurl",
        "store = 3\n#",
        "1: store: expected a tab",
        "found an",
    ),
    "interval, zero": ('"1h"', '"0h"', EVERY_AT, "must be above zero"),
    "interval, negative": ('"1h"', '"-1h"', EVERY_AT, 'a number and a unit, such as "30m"'),
    "interval, without a unit": ('"1h"', '"60"', EVERY_AT, 'a number and a unit, such as "30m"'),
    "interval, absurd": ('"1h"', '"999w"', EVERY_AT, "must be at most ten years"),
    "interval, never": ('"1h"', '"0 0 31 2 *"', EVERY_AT + "a cron line", "that never happens"),
    "interval, backwards": ('"1h"', '"3h..2h"', EVERY_AT, "the shorter time comes first"),
    "variable, not set": (
        "${WRITE_KEY}",
        "${NO_SUCH_KEY}",
        KEY_AT + "environment variable NO_SUCH_KEY is not set",
        "set it, or write ${NO_SUCH_KEY:-default}",
    ),
    "variable, empty": (
        "${WRITE_KEY}",
        "${EMPTY}",
        KEY_AT + "environment variable EMPTY is empty",
        "set it, or write ${EMPTY:-default}",
    ),
    "variable, not closed": (
        "${WRITE_KEY}",
        "${WRITE_KEY",
        KEY_AT + "has a ${…} that cannot be read",
        "${NAME}, ${NAME:-default}, ${file:/path}",
    ),
    "secret file, missing": (
        "${WRITE_KEY}",
        "${file:no.key}",
        KEY_AT + 'secret file "no.key" does not exist',
        "check the path; it is relative to the file that names it",
    ),
    "secret file, binary": (
        "${WRITE_KEY}",
        "${file:binary.key}",
        KEY_AT + 'secret file "binary.key" is not UTF-8 text',
        "save it as UTF-8",
    ),
    "secret file, empty": (
        "${WRITE_KEY}",
        "${file:empty.key}",
        KEY_AT + 'secret file "empty.key" is empty',
        "write the secret into it",
    ),
    "secret file, without an end": (
        "${WRITE_KEY}",
        "${file:/dev/zero}",
        KEY_AT + 'secret file "/dev/zero" is not a regular file',
        "pipes and devices are never read",
    ),
    "placeholder": (
        "${WRITE_KEY}",
        "YOUR_WRITE_KEY",
        KEY_AT + "is a placeholder, not a key",
        "put the key into a variable or a file",
    ),
    "placeholder, in the variable": (
        "${WRITE_KEY}",
        "${UNCHANGED}",
        KEY_AT + "is a placeholder, not a key",
        "put the key into a variable or a file",
    ),
    "no key": ("${WRITE_KEY}", "${LONG}", KEY_AT + "has 1,500 characters", "more than any key"),
    "http:// to elsewhere": (
        "http://127.0.0.1:PORT/v1",
        "http://api.segment.io/v1",
        PLACE_AT + "sends the key in the clear",
        "http:// is for loopback only, write https://",
    ),
    "user:password, in an endpoint": (
        "http://127.0.0.1:PORT/v1",
        f"https://me:{KEY}@api.segment.io/v1",
        PLACE_AT + "holds a user or password",
        "take it out, the key is the credential",
    ),
    "user:password, in the store's URL": (
        "sqlite:///state.db",
        f"postgresql://me:{KEY}@127.0.0.1/db",
        "2: store.url: a password stands in the file itself",
        'write "${NAME}" or "${file:/path}" in its place',
    ),
    "unknown database driver": (
        "sqlite:///state.db",
        "mysql://127.0.0.1/db",
        "2: store.url: unknown database driver",
        "write sqlite:///file.db or postgresql://…",
    ),
    "user:password, in a source's URL": (
        "[destinations.calls]",
        DATABASE.format(f'url = "postgresql://me:{KEY}@127.0.0.1/db"'),
        "12: sources.db.url: a password stands in the file itself",
        'write "${NAME}" or "${file:/path}" in its place',
    ),
    "unknown database driver, of a source": (
        "[destinations.calls]",
        DATABASE.format('url = "postgres://127.0.0.1/db"'),
        "12: sources.db.url: unknown database driver",
        "write postgresql://",
    ),
    "driver that is not installed": (
        "[destinations.calls]",
        DATABASE.format('url = "snowflake://127.0.0.1/db"'),
        "12: sources.db.url: needs a driver that is not installed",
        "pip install snowflake-sqlalchemy",
    ),
    "freshness without an age": (
        "[destinations.calls]",
        DATABASE.format('url = "sqlite:///x.db"\nfreshness = { query = "SELECT 1" }'),
        "13: sources.db.freshness.max_age: ",
        "is missing",
    ),
    "timeout of a source, absurd": (
        "[destinations.calls]",
        DATABASE.format('url = "sqlite:///x.db"\ntimeout = "99w"'),
        "13: sources.db.timeout: ",
        "must be",
    ),
    "store, in memory": (
        "sqlite:///state.db",
        "sqlite://",
        "2: store.url: names no file",
        "must outlive the program",
    ),
    "names collide": (
        AUDIENCE,
        AUDIENCE * 2,
        SECOND_AT + "the same name as the audience at config.toml:18",
        "rename one",
    ),
    "names collide, by case": (
        AUDIENCE,
        AUDIENCE + AUDIENCE.replace("Winback", "WINBACK"),
        SECOND_AT + 'collides with "Winback" at config.toml:18',
        "they differ only in case or in how letters are encoded; rename one",
    ),
    "names collide, NFC and NFD": (
        AUDIENCE,
        AUDIENCE.replace("Winback", "Caf\u00e9") + AUDIENCE.replace("Winback", "Cafe\u0301"),
        SECOND_AT + 'collides with "Café" at config.toml:18',
        "they differ only in case or in how letters are encoded; rename one",
    ),
    "names collide, of an audience and a computed trait": (
        AUDIENCE,
        AUDIENCE + TRAIT,
        "23: computed_traits[0].name: the same name as the audience at config.toml:18",
        "rename one",
    ),
    "one trait key": (
        AUDIENCE,
        AUDIENCE + AUDIENCE.replace("Winback", "Other").replace("source", 'key="winback"\nsource'),
        '24: audiences[1].key: trait key "winback" is also that of the audience at config.toml:18',
        'write key = "…" to choose another',
    ),
    "one trait key, of an audience and a computed trait": (
        AUDIENCE,
        AUDIENCE.replace("Winback", "Win-back") + TRAIT.replace("Winback", "Win back"),
        '23: computed_traits[0].name: trait key "win_back" is also that of the audience at config',
        'write key = "…" to choose another',
    ),
    "trait key, reserved": (
        '"Winback"',
        '"E-mail"\nkey = "email"',
        '19: audiences[0].key: "email" is reserved',
        "choose another",
    ),
    "trait key, empty": (
        '"Winback"',
        '"x"\nkey = ""',
        '19: audiences[0].key: "" yields no trait key',
        "choose another",
    ),
    "name that yields no key": (
        "Winback",
        "日本",
        NAME_AT + '"日本" yields no trait key',
        'write key = "…" to choose the trait key',
    ),
    "unknown source": (
        '"shop"',
        '"shp"',
        '19: audiences[0].source: unknown source "shp"',
        'did you mean "shop"?',
    ),
    "unknown destination": (
        '"calls",',
        '"cals",',
        '21: audiences[0].destinations[0]: unknown destination "cals"',
        'did you mean "calls"?',
    ),
    "guard, a share over all": (
        '"20%"',
        '"101%"',
        "6: guard.max_exits: ",
        "must be from 0% to 100%",
    ),
    "guard, no share": ('"20%"', '"20"', "6: guard.max_exits: ", 'a percentage, such as "20%"'),
    "guard, below zero": ('"20%"', '"20%"\nfloor = -1', "7: guard.floor: ", "must be at least 0"),
    "guard, of an audience": (
        '"Winback"',
        '"Winback"\nguard = { max_entries = "9999999%" }',
        "19: audiences[0].guard.max_entries: ",
        "must be from 0% to 100000%",
    ),
    "rate without a unit": (
        '"${WRITE_KEY}"',
        '"${WRITE_KEY}"\nrate = "1000"',
        "16: destinations.segment.rate: ",
        'write a number and a unit, such as "1000/s"',
    ),
    "quota without a unit": (
        '"${WRITE_KEY}"',
        '"${WRITE_KEY}"\nquota = "5000"',
        "16: destinations.segment.quota: ",
        'write a whole number a day, such as "5000/day"',
    ),
    "quota for nobody": (
        '"${WRITE_KEY}"',
        '"${WRITE_KEY}"\nquota = "1/day"',
        "16: destinations.segment.quota: ",
        "a larger quota, or another reserve",
    ),
    "batch out of range": (
        '"${WRITE_KEY}"',
        '"${WRITE_KEY}"\nbatch = 2501',
        "16: destinations.segment.batch: ",
        "must be at most 2500",
    ),
    "concurrency out of range": (
        '"${WRITE_KEY}"',
        '"${WRITE_KEY}"\nconcurrency = 0',
        "16: destinations.segment.concurrency: ",
        "must be at least 1",
    ),
    "unknown timezone": (
        '"1h"',
        '"1h"\ntimezone = "Mars/Base"',
        "5: schedule.timezone: unknown timezone",
        'write a name such as "Europe/Berlin"',
    ),
    "Track calls alone": (
        '"${WRITE_KEY}"',
        '"${WRITE_KEY}"\ncalls = ["track"]',
        "16: destinations.segment.calls: ",
        "identify",
    ),
    "computed trait, told by change": (
        AUDIENCE,
        TRAIT + 'tell = ["entered"]\n',
        "22: computed_traits[0].tell: unknown key",
        "of a computed trait every change is told",
    ),
    "state that is none": (
        '"Winback"',
        '"Winback"\nstate = "stopped"',
        '19: audiences[0].state: "stopped" is not accepted',
        "accepted: active, paused, retired",
    ),
    "two destinations of one file": (
        "[destinations.segment]",
        '[destinations.other]\ntype = "ndjson"\npath = "./calls.ndjson"\n[destinations.segment]',
        "15: destinations.other.path: the same file as of the destination at config.toml:12",
        "give each a file of its own",
    ),
}


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    """Where Segment is said to be; whoever connects is seen."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture
def program(tmp_path: Path) -> Program:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    return Program(folder=tmp_path, variables=VARIABLES)


def configure(program: Program, text: str, listener: socket.socket) -> None:
    text = text.replace("PORT", str(listener.getsockname()[1]))
    content = text.encode("utf-8", "surrogateescape")
    (program.folder / "config.toml").write_bytes(content)


def refused(program: Program, listener: socket.socket, *arguments: str) -> Done:
    """What a run says that must change nothing and connect to nobody."""
    before = program.files()
    done = program.run(*(arguments or ("sync",)))
    assert (done.code, done.out) == (78, ""), done
    assert "Traceback" not in done.err
    assert KEY not in done.err
    assert program.files() == before
    with pytest.raises(BlockingIOError):
        listener.accept()
    return done


def test_the_configuration_that_the_rows_break_is_good(program: Program, tmp_path: Path) -> None:
    """So that it is what a row breaks that keeps everything from happening."""
    with serve(log=tmp_path / "segment.log", write_key=KEY) as api:
        text = GOOD.replace("http://127.0.0.1:PORT/v1", api.endpoint)
        (tmp_path / "config.toml").write_text(text)
        done = program.run("sync")
        assert (done.code, done.err) == (0, NEW_STORE)
        assert len(api.calls()) == 1
    assert len(program.calls()) == 1


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_bad_configuration(program: Program, listener: socket.socket, row: Row) -> None:
    old, new, fault, todo = row
    assert GOOD.count(old) == 1
    configure(program, GOOD.replace(old, new), listener)
    done = refused(program, listener)
    place = fault if ".toml:" in fault else f"config.toml:{fault}"
    told = [line for line in done.err.splitlines() if place in line]
    assert len(told) == 1, done.err
    assert todo in told[0].partition(place)[2], done.err


PLACES: dict[str, tuple[str, str, str]] = {
    "missing": ("nowhere.toml", "does not exist", "audience-sync init writes one, --config names"),
    "missing, in no folder": ("no/where.toml", "does not exist", "audience-sync init writes one"),
    "directory": ("folder", "is a directory", "name a file"),
    "unreadable": ("memory", "cannot be read: Input/output error", "check its permissions"),
    "link in a circle": ("circle", "cannot be read: Too many levels of symb", "check its permissi"),
    "pipe": ("pipe", "is not a regular file", "pipes and devices are never read"),
    "socket": ("socket", "is not a regular file", "pipes and devices are never read"),
    "without an end": ("/dev/zero", "is not a regular file", "pipes and devices are never read"),
    "huge": ("huge", "is larger than 4,000,000 bytes", "is it the right file?"),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "folder").mkdir()
    # A regular file that cannot be read, not even by root.
    (folder / "memory").symlink_to("/proc/self/mem")
    (folder / "circle").symlink_to("circle")
    os.mkfifo(folder / "pipe")
    (folder / "huge").write_bytes(b"#" * 4_000_001)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "socket"))
    return folder


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_configuration_that_is_no_file(
    program: Program, listener: socket.socket, odd: Path, place: tuple[str, str, str]
) -> None:
    name, fault, todo = place
    done = refused(program, listener, "--config", str(odd / name), "sync")
    assert done.err.startswith(f"audience-sync: {odd / name}: {fault}")
    assert todo in done.err
    assert len(done.err.splitlines()) == 1


def test_all_at_once_and_in_the_order_of_the_file(
    program: Program, listener: socket.socket
) -> None:
    text = GOOD
    for old, new in [
        ("sqlite:///state.db", "mysql://h/d"),
        ('"1h"', '"0h"'),
        ('"20%"', '"101%"'),
        ("root", "rot"),
        ("${WRITE_KEY}", "${NO_SUCH_KEY}"),
        ("http://127.0.0.1:PORT/v1", "http://api.segment.io/v1"),
        ("Winback", "日本"),
        ('"shop"', '"shp"'),
        ('"calls",', '"cals",'),
    ]:
        assert text.count(old) == 1
        text = text.replace(old, new)
    configure(program, text, listener)
    places = re.findall(r"config\.toml:(\d+): (\S+):", refused(program, listener).err)
    assert places == [
        ("2", "store.url"),
        ("4", "schedule.every"),
        ("6", "guard.max_exits"),
        ("7", "sources.shop.root"),
        ("9", "sources.shop.rot"),
        ("15", "destinations.segment.write_key"),
        ("16", "destinations.segment.endpoint"),
        ("18", "audiences[0].name"),
        ("19", "audiences[0].source"),
        ("21", "audiences[0].destinations[0]"),
    ]


@pytest.mark.parametrize("command", ["check", "diff", "status", "approve", "db"])
def test_whatever_the_command(program: Program, listener: socket.socket, command: str) -> None:
    configure(program, GOOD.replace('"1h"', '"0h"'), listener)
    more = {"approve": ["20260101T0000Z-aa", "--yes"], "db": ["upgrade"]}.get(command, [])
    done = refused(program, listener, command, *more)
    assert "config.toml:4: schedule.every: must be above zero" in done.err


WARNED: dict[str, Row] = {
    "secret file, world-readable": (
        "${WRITE_KEY}",
        "${file:text.key}",
        KEY_AT + 'secret file "text.key" can be read by everyone',
        "chmod o-r",
    ),
    "secret, in the file": (
        "${WRITE_KEY}",
        KEY,
        KEY_AT + "the secret stands in the file itself",
        'write "${SEGMENT_WRITE_KEY}" or "${file:/path}"',
    ),
    "unused source": (
        "[destinations.calls]",
        '[sources.unused]\ntype = "files"\nroot = "."\n[destinations.calls]',
        "10: sources.unused: no audience uses it",
        "take it out, or name it in one",
    ),
    "include that matches nothing": (
        "[store]",
        'include = ["more/*.toml"]\n[store]',
        '1: include[0]: no file matches "more/*.toml"',
        "",
    ),
}


@pytest.mark.parametrize("row", WARNED.values(), ids=WARNED)
def test_what_is_only_warned_of(program: Program, listener: socket.socket, row: Row) -> None:
    old, new, fault, todo = row
    assert GOOD.count(old) == 1
    (program.folder / "text.key").chmod(0o644)
    configure(program, GOOD.replace(old, new), listener)
    done = program.run("check", "--offline")
    assert done.code == 0
    assert done.err.startswith(f"warning: config.toml:{fault}")
    assert todo in done.err
    assert len(done.err.splitlines()) == 1
    assert KEY not in done.out + done.err
