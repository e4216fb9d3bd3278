"""Every bad configuration is told at its place, all at once, without secret values (P18)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from audience_sync.config.load import load
from audience_sync.errors import ConfigError

KEY = "wk-canary-93f1"
ENVIRON = {"KEY": KEY, "EMPTY": "", "BYTES": "\udcff"}

GOOD = """\
[store]
url = "sqlite:///state.db"
[sources.shop]
type = "files"
root = "data"
[destinations.calls]
type = "ndjson"
path = "calls.ndjson"
[destinations.segment]
type = "segment"
write_key = "${KEY}"
[[audiences]]
name = "Winback"
source = "shop"
query = "SELECT 1"
destinations = ["calls", "segment"]
"""
SECOND = GOOD[GOOD.index("[[audiences]]") :]


def problems(
    folder: Path, text: str | bytes, environ: Mapping[str, str] = ENVIRON
) -> tuple[str, ...]:
    path = folder / "config.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load([path], environ)
    assert KEY not in str(caught.value)
    return tuple(problem.removeprefix(f"{folder}/") for problem in caught.value.problems)


def edited(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_the_configuration_that_the_cases_edit_is_good(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(GOOD)
    assert load([tmp_path / "config.toml"], ENVIRON).warnings == ()


FILES = [
    ("", "config.toml: is empty (it needs at least one source, destination, audience)"),
    (" \n\t\n", "config.toml: is empty (it needs at least one source, destination, audience)"),
    ("# only a comment\n", "config.toml:1: audiences: there are none (add [[audiences]] or "),
    ("[store]\naudiences", "config.toml:2:10: not TOML: expected '=' after a key in a key/value"),
    ("a = 1\nb = abc\n", "config.toml:2:5: not TOML: invalid value (strings need quotes)"),
    ("a = [\n\n", "config.toml:3:1: not TOML: invalid value"),
    ("a = 1\na = 2\n", "config.toml:2:6: not TOML: cannot overwrite a value"),
    (b"a = 1\nb = '\xe9'\n", "config.toml:2: is not UTF-8 text (save it as UTF-8)"),
    ("a = 1\n".encode("utf-16"), "config.toml:1: is not UTF-8 text (save it as UTF-8)"),
    ("a = 1\nb = '\0'", "config.toml:2: holds a NUL byte, so it is not text"),
    ("a = " + "[" * 5000, "config.toml: has tables or arrays more than 32 levels deep"),
    (".".join("a" * 50) + " = 1", "config.toml: has tables or arrays more than 32 levels deep"),
    ("a = " + "9" * 5000, "config.toml: holds a number that is too long"),
    ("#" * 4_000_001, "config.toml: is larger than 4,000,000 bytes"),
]


@pytest.mark.parametrize(("text", "expected"), FILES)
def test_a_file_that_cannot_be_read(tmp_path: Path, text: str | bytes, expected: str) -> None:
    (found,) = problems(tmp_path, text)
    assert found.startswith(expected)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: does not exist"):
        load([tmp_path / "nowhere.toml"], {})
    with pytest.raises(ConfigError, match="no configuration file is named"):
        load([], {})


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r": is a directory \(name a file\)"):
        load([tmp_path], {})


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.toml")
    with pytest.raises(ConfigError, match=r"config\.toml: is not a regular file"):
        load([tmp_path / "config.toml"], {})


def test_an_unreadable_file() -> None:
    # The first page of its own memory: a regular file that nobody can read, not even root.
    with pytest.raises(ConfigError, match="/proc/self/mem: cannot be read: Input/output error"):
        load([Path("/proc/self/mem")], {})


VALUES = [
    # unknown keys and types
    ('name = "Winback"', 'nam = "x"', '13: audiences[0].nam: unknown key (did you mean "name"?)'),
    ('name = "Winback"', "", "12: audiences[0].name: is missing"),
    ("[store]", "[stor]", '1: stor: unknown key (did you mean "store"?)'),
    ("[store]", "[panel]\n[store]", '1: panel: unknown key (known: "audiences", "computed_tra'),
    ("[store]", "[stroe]\n[store]", '1: stroe: unknown key (did you mean "store"?)'),
    ("[store]", "[[computed_trait]]\n[store]", "1: computed_trait: unknown key (did you mean"),
    ("[store]", "[crisp]\n[store]", "1: crisp: unknown key (known: "),
    ("[store]", "store.kep = '1d'\n#", '1: store.kep: unknown key (did you mean "keep"?)'),
    ("[store]", '"a\\nb".c = 1\n[store]', '1: "a\\nb": unknown key (known: '),
    (
        'type = "files"',
        'type = "csv"',
        '4: sources.shop.type: unknown type "csv" (known: "files", "sql")',
    ),
    ('type = "files"', 'type = "sql"', "3: sources.shop.url: is missing"),
    ('type = "files"', "", '3: sources.shop.type: is missing (known: "files", "sql")'),
    ('type = "files"', "type = 4", "4: sources.shop.type: expected a string, found an integer"),
    (
        'type = "segment"',
        'type = "crips"',
        '10: destinations.segment.type: unknown type "crips" (known: "crisp", "ndjson", "segment")',
    ),
    (
        'type = "ndjson"',
        "",
        '6: destinations.calls.type: is missing (known: "crisp", "ndjson", "segment")',
    ),
    ('type = "ndjson"', "type = []", "7: destinations.calls.type: expected a string, found an arr"),
    ("[destinations.calls]", '[destinations."a b"]', '6: destinations."a b": a name has at most'),
    ('path = "calls.ndjson"', "", "6: destinations.calls.path: is missing"),
    ('path = "calls.ndjson"', 'path = ""', "8: destinations.calls.path: is empty"),
    (
        'path = "calls.ndjson"',
        'path = "a\\u0000"',
        "8: destinations.calls.path: is not a usable pa",
    ),
    ('root = "data"', "root = 1.5", "5: sources.shop.root: expected a string, found a float"),
    ('root = "data"', "", "3: sources.shop.root: is missing"),
    # types
    ("[store]\nurl", "store = 3\n[x]\nurl", "1: store: expected a table, found an integer"),
    ("[[audiences]]", "[audiences]", "12: audiences: expected an array of tables (write [[audi"),
    ("[[audiences]]", "audiences = 1\n[x]", "12: destinations.segment.audiences: unknown key"),
    ('name = "Winback"', "name = true", "13: audiences[0].name: expected a string, found a boolea"),
    ('["calls", "segment"]', '"calls"', "16: audiences[0].destinations: expected an array, found"),
    ('["calls", "segment"]', '["calls", 3]', "16: audiences[0].destinations[1]: expected a string"),
    # computed traits
    ("[[audiences]]", "[computed_traits]", "12: computed_traits: expected an array of tables (wri"),
    ("[[audiences]]", "[[computed_traits]]\ntell = ['exited']", "13: computed_traits[0].tell: unk"),
    ("[[audiences]]", "[[computed_traits]]\nfloor = 1", "13: computed_traits[0].floor: unknown ke"),
    (
        "[[audiences]]",
        "[[computed_traits]]\nevry = 1",
        "13: computed_traits[0].evry: unknown key (",
    ),
    ("[[audiences]]", "[[computed_traits]]\nguard.floo = 1", "13: computed_traits[0].guard.floo:"),
    (
        SECOND,
        SECOND.replace("audiences", "computed_traits").replace('query = "SELECT 1"\n', ""),
        "12: computed_traits[0].query: is missing (write query or query_file)",
    ),
    (
        SECOND,
        SECOND + SECOND.replace("audiences", "computed_traits"),
        "18: computed_traits[0].name: the same name as the audience at ",
    ),
    (
        SECOND,
        SECOND + SECOND.replace("audiences", "computed_traits").replace("Winback", "winBack"),
        '18: computed_traits[0].name: collides with "Winback" at ',
    ),
    (
        SECOND,
        SECOND.replace("audiences", "computed_traits")
        + SECOND.replace('"Winback"', '"Other"\nkey = "winback"'),
        '13: computed_traits[0].name: trait key "winback" is also that of the audience at ',
    ),
    # names, keys
    ('"Winback"', '""', "13: audiences[0].name: is empty"),
    ('"Winback"', '"a\\u001b[2J"', "13: audiences[0].name: must be one line of at most 200"),
    ('"Winback"', f'"{"a" * 201}"', "13: audiences[0].name: must be one line of at most 200"),
    ('"Winback"', '"日本"', '13: audiences[0].name: "日本" yields no trait key (write key = "…"'),
    ('"Winback"', '"E-mail"\nkey = "email"', '14: audiences[0].key: "email" is reserved: '),
    ('"Winback"', '"Email"', '13: audiences[0].name: "email" is reserved: '),
    ('"Winback"', '"x"\nkey = ""', '14: audiences[0].key: "" yields no trait key'),
    ('"Winback"', '"x"\nkey = "A"', '14: audiences[0].key: "A" must start with a letter'),
    ('"Winback"', '"2026 VIPs"', '13: audiences[0].name: "2026_vips" must start with a letter'),
    # what an audience names
    ('"shop"', '"shp"', '14: audiences[0].source: unknown source "shp" (did you mean "shop"?)'),
    (
        '"shop"',
        '"warehouse"',
        '14: audiences[0].source: unknown source "warehouse" (known: "shop")',
    ),
    (
        '["calls", "segment"]',
        '["segmnt"]',
        '16: audiences[0].destinations[0]: unknown destination "segmnt" (did you mean "segment"?)',
    ),
    ('["calls", "segment"]', "[]", "16: audiences[0].destinations: names none"),
    ('destinations = ["calls", "segment"]', "", "12: audiences[0].destinations: is missing"),
    ('"segment"]', '"calls"]', '16: audiences[0].destinations[1]: "calls" is named twice'),
    # queries
    ('query = "SELECT 1"', "", "12: audiences[0].query: is missing (write query or query_file)"),
    ('query = "SELECT 1"', 'query = " \\n"', "15: audiences[0].query: the query is empty"),
    ('query = "SELECT 1"', 'query = "a\\u0000"', "15: audiences[0].query: holds a NUL character"),
    ('query = "SELECT 1"', 'query = ["x"]', "15: audiences[0].query: expected a string, found an"),
    (
        'query = "SELECT 1"',
        'query = "1"\nquery_file = "q"',
        "16: audiences[0].query_file: there is",
    ),
    ('query = "SELECT 1"', 'query_file = "q.sql"', "15: audiences[0].query_file: "),
    ('query = "SELECT 1"', 'query_file = ""', "15: audiences[0].query_file: is empty"),
    # state, tell, guard, cadence
    (
        '"Winback"',
        '"x"\nstate = "off"',
        '14: audiences[0].state: "off" is not accepted (accepted: ',
    ),
    ('"Winback"', '"x"\non_retire = ""', '14: audiences[0].on_retire: "" is not accepted (accept'),
    ('"Winback"', '"x"\ntell = []', "14: audiences[0].tell: names none; at least one is needed"),
    ('"Winback"', '"x"\ntell = ["left"]', '14: audiences[0].tell[0]: "left" is not accepted (acc'),
    (
        '"Winback"',
        '"x"\ntell = ["exited", "exited"]',
        '14: audiences[0].tell[1]: "exited" is named',
    ),
    ('"Winback"', '"x"\nmax_exits = "9%"', "14: audiences[0].max_exits: unknown key (write guard"),
    (
        '"Winback"',
        '"x"\nguard.max_exit = "9%"',
        "14: audiences[0].guard.max_exit: unknown key (did",
    ),
    ('"Winback"', '"x"\nevery = "5"', "14: audiences[0].every: write a number and a unit"),
    ('"Winback"', '"x"\nevery = 5', "14: audiences[0].every: expected a string, found an integer"),
    ('"Winback"', '"x"\nevery = "* * *"', "14: audiences[0].every: a cron line has five fields"),
    (
        "[store]",
        'schedule.every = "0h"\n[store]',
        '1: schedule.every: must be above zero (found "0h"',
    ),
    ("[store]", 'schedule.every = "-3h"\n[store]', "1: schedule.every: write a number and a unit"),
    (
        "[store]",
        'schedule.every = "99999w"\n[store]',
        "1: schedule.every: must be at most ten years",
    ),
    (
        "[store]",
        'schedule.every = "3h..2h"\n[store]',
        "1: schedule.every: the shorter time comes fi",
    ),
    (
        "[store]",
        'schedule.every = "60 * * * *"\n[store]',
        "1: schedule.every: not a cron line: a nu",
    ),
    (
        "[store]",
        'schedule.every = "0 0 30 2 *"\n[store]',
        "1: schedule.every: a cron line that neve",
    ),
    (
        "[store]",
        'schedule.timezone = "Mars"\n[store]',
        "1: schedule.timezone: unknown timezone; wri",
    ),
    ("[store]", 'schedule.timezone = "Europe"\n[store]', "1: schedule.timezone: unknown timezone;"),
    (
        "[store]",
        'schedule.timezone = "../x"\n[store]',
        "1: schedule.timezone: unknown timezone; wri",
    ),
    ("[store]", 'guard.max_exits = "101%"\n[store]', "1: guard.max_exits: must be from 0% to 100%"),
    (
        "[store]",
        'guard.max_exits = "20"\n[store]',
        "1: guard.max_exits: write a percentage, such as",
    ),
    (
        "[store]",
        "guard.max_exits = 0.2\n[store]",
        "1: guard.max_exits: expected a string, found a f",
    ),
    ("[store]", "guard.floor = -1\n[store]", "1: guard.floor: must be at least 0 (found -1)"),
    (
        "[store]",
        "guard.max_initial = 1.0\n[store]",
        "1: guard.max_initial: expected an integer, fou",
    ),
    # engine
    ("[store]", 'engine.memory_limit = "1GX"\n[store]', "1: engine.memory_limit: write a size and"),
    (
        "[store]",
        'engine.memory_limit = "9MB"\n[store]',
        "1: engine.memory_limit: must be from 128MB",
    ),
    ("[store]", "engine.threads = 0\n[store]", "1: engine.threads: must be at least 1 (found 0)"),
    (
        "[store]",
        "engine.threads = true\n[store]",
        "1: engine.threads: expected an integer, found a b",
    ),
    # store
    (
        '"sqlite:///state.db"',
        '"mysql://h/db"',
        "2: store.url: unknown database driver; write sqlite",
    ),
    (
        '"sqlite:///state.db"',
        '"postgresql+psycopg2://h/d"',
        "2: store.url: unknown database driver",
    ),
    (
        '"sqlite:///state.db"',
        '"postgres://h/db"',
        "2: store.url: unknown database driver; write pos",
    ),
    (
        '"sqlite:///state.db"',
        '"sqlite://state.db"',
        "2: store.url: names a host; a SQLite file has",
    ),
    ('"sqlite:///state.db"', '"sqlite://"', "2: store.url: names no file"),
    ('"sqlite:///state.db"', '"sqlite:///:memory:"', "2: store.url: names no file"),
    (
        '"sqlite:///state.db"',
        '"state.db"',
        "2: store.url: is not an address like scheme://host/path",
    ),
    ('"sqlite:///state.db"', '""', "2: store.url: is not an address like scheme://host/path"),
    (
        '"sqlite:///state.db"',
        '"postgresql://u:p@h/d"',
        "2: store.url: a password stands in the file",
    ),
    ('"sqlite:///state.db"', '"${NO:-postgresql://u:p@h/d}"', "2: store.url: a password stands in"),
    (
        '"sqlite:///state.db"',
        '"postgresql://u@h/d?password=p"',
        "2: store.url: a password stands in",
    ),
    (
        '"sqlite:///state.db"',
        '"postgresql://u@h:99999/d"',
        "2: store.url: has a port that is not a",
    ),
    ('"sqlite:///state.db"', '"postgresql://<user>@h/d"', "2: store.url: holds a placeholder"),
    (
        '"sqlite:///state.db"',
        '"sqlite:///s.db"\nkeep = "1m"',
        "3: store.keep: must be from 1h to ten",
    ),
    # segment
    ('"${KEY}"', "3", "11: destinations.segment.write_key: expected a string, found an integer"),
    ('"${KEY}"', '""', "11: destinations.segment.write_key: is empty"),
    ('"${KEY}"', '"a b"', "11: destinations.segment.write_key: holds white space, a colon or"),
    (
        '"${KEY}"',
        '"${KEY}\\n"',
        "11: destinations.segment.write_key: holds white space, a colon or",
    ),
    ('write_key = "${KEY}"', "", "9: destinations.segment.write_key: is missing"),
    (
        '"${KEY}"',
        '"${KEY}"\nbatch = 2501',
        "12: destinations.segment.batch: must be at most 2500 (",
    ),
    (
        '"${KEY}"',
        '"${KEY}"\nbatch = 0',
        "12: destinations.segment.batch: must be at least 1 (found",
    ),
    (
        '"${KEY}"',
        '"${KEY}"\nbatch = "5"',
        "12: destinations.segment.batch: expected an integer, fou",
    ),
    (
        '"${KEY}"',
        '"${KEY}"\nconcurrency = 65',
        "12: destinations.segment.concurrency: must be at mo",
    ),
    (
        '"${KEY}"',
        '"${KEY}"\nrate = "1000"',
        "12: destinations.segment.rate: write a number and a un",
    ),
    ('"${KEY}"', '"${KEY}"\nrate = "0/s"', "12: destinations.segment.rate: must be above zero"),
    (
        '"${KEY}"',
        f'"${{KEY}}"\nrate = "{"9" * 400}/s"',
        "12: destinations.segment.rate: must be from",
    ),
    (
        '"${KEY}"',
        '"${KEY}"\nquota = "5000"',
        "12: destinations.segment.quota: write a whole number a day",
    ),
    (
        '"${KEY}"',
        '"${KEY}"\nquota = "5000/h"',
        "12: destinations.segment.quota: write a whole number a day",
    ),
    (
        '"${KEY}"',
        '"${KEY}"\nquota = 5000',
        '12: destinations.segment.quota: expected a string, found an integer (such as "5000/day")',
    ),
    ('"${KEY}"', '"${KEY}"\nquota = "0/day"', "12: destinations.segment.quota: must be above z"),
    (
        '"${KEY}"',
        f'"${{KEY}}"\nquota = "{"9" * 5000}/day"',
        "12: destinations.segment.quota: must be at most",
    ),
    (
        '"${KEY}"',
        '"${KEY}"\nquota = "1/day"',
        "12: destinations.segment.quota: with this reserve it is 0 for first deliveries and 1 for",
    ),
    (
        '"${KEY}"',
        '"${KEY}"\nquota = "5/day"\ncalls = ["identify", "track"]',
        "12: destinations.segment.quota: with this reserve it is 4 for first deliveries and 1 for",
    ),
    (
        '"${KEY}"',
        '"${KEY}"\nreserve = "0%"',
        "12: destinations.segment.reserve: must be from 1% to",
    ),
    (
        '"${KEY}"',
        '"${KEY}"\nreserve = "100%"',
        "12: destinations.segment.reserve: must be from 1% ",
    ),
    (
        '"${KEY}"',
        '"${KEY}"\ndeadline = "60s"',
        "12: destinations.segment.deadline: must be from 1s",
    ),
    ('"${KEY}"', '"${KEY}"\ncalls = []', "12: destinations.segment.calls: names none"),
    (
        '"${KEY}"',
        '"${KEY}"\ncalls = ["identify", "group"]',
        '12: destinations.segment.calls[1]: "group" is not accepted (accepted: identify, track)',
    ),
    (
        '"${KEY}"',
        '"${KEY}"\ncalls = ["track"]',
        "12: destinations.segment.calls: names no identify, and only Identify carries the trait; "
        'write ["identify"] or ["identify", "track"]',
    ),
    (
        '"${KEY}"',
        '"${KEY}"\ncalls = ["track", "identify"]',
        "12: destinations.segment.calls: names track first, but an event needs a profile",
    ),
    (
        '"${KEY}"',
        '"${KEY}"\ncalls = ["identify", "identify"]',
        "12: destinations.segment.calls: names a call twice; write",
    ),
    (
        'path = "calls.ndjson"',
        'path = "calls.ndjson"\ncalls = "identify"',
        "9: destinations.calls.calls: expected an array, found a string",
    ),
    (
        '"${KEY}"',
        '"${KEY}"\nintegrations = []',
        "12: destinations.segment.integrations: expected a t",
    ),
    (
        '"${KEY}"',
        '"${KEY}"\nintegrations.A = 1',
        "12: destinations.segment.integrations.A: is true",
    ),
    (
        '"${KEY}"',
        '"${KEY}"\nintegrations.A.b = [nan]',
        "12: destinations.segment.integrations.A: holds a date or a number that JSON does not have",
    ),
]

STATUS = [
    (
        'listen = "0.0.0.0:8340"',
        "listen: other machines can reach it, and there is no token (wr",
    ),
    ('listen = "[::]:8340"', "listen: other machines can reach it, and there is no token"),
    ('listen = "192.0.2.7:8340"', "listen: other machines can reach it, and there is no token"),
    ('listen = "127.0.0.1"', 'listen: write an address and a port, such as "127.0.0.1:8340" (f'),
    ('listen = ""', "listen: write an address and a port"),
    ('listen = "::1:8340"', "listen: write an address and a port"),
    ('listen = "http://127.0.0.1:8340"', "listen: write an address and a port"),
    ('listen = ":8340"', 'listen: names no address; write "127.0.0.1" for this machine'),
    ('listen = "127.0.0.1:65536"', "listen: the port must be a number up to 65535 (found"),
    ('listen = "127.0.0.1:-1"', "listen: write an address and a port"),
    ('listen = "127.1:8340"', "listen: the address must be an IP"),
    ('listen = "[127.0.0.1]:8340"', "listen: the address must be an IP"),
    ('listen = "sync.example.com:8340"', "listen: the address must be an IP"),
    ("listen = 8340", "listen: expected a string, found an integer"),
    ('token = ""', "token: is empty; openssl rand -hex 24 makes one"),
    ('token = "0123456789abcde"', "token: has fewer than 16 characters; openssl"),
    ('token = "${KEY} ${KEY}"', "token: may hold A-Z a-z 0-9 - . _ ~ + / and = at its end"),
    ('token = "YOUR_STATUS_TOKEN"', "token: is a placeholder, not a token"),
    ('hosts = "sync.example.com"', "hosts: expected an array, found a string"),
    ('hosts = ["https://sync.example.com"]', "hosts[0]: write a host name without scheme and port"),
    ('hosts = ["a", "sync.example.com:80"]', "hosts[1]: write a host name without scheme and po"),
    ('hosts = ["*.example.com"]', "hosts[0]: write a host name"),
    ('lisen = "127.0.0.1:1"', 'lisen: unknown key (did you mean "listen"?)'),
]

PLACEHOLDERS = (
    "YOUR_WRITE_KEY", "your-key-here", "<write key>", "changeme", "CHANGE_ME", "xxx", "XXXXXXXX",
    "replace-me", "TODO", "***", "...", "{{key}}", "insert_key_here", "write_key", "placeholder",
)  # fmt: skip

ENDPOINTS = [
    ("http://api.segment.io/v1", "sends the key in the clear; http:// is for loopback only"),
    ("http://127.0.0.1.evil.example/v1", "sends the key in the clear"),
    ("http://0.0.0.0/v1", "sends the key in the clear"),
    ("ftp://h/v1", "must start with https://"),
    ("api.segment.io/v1", "is not an address like scheme://host/path"),
    ("https:///v1", "names no host"),
    ("https://YOUR_HOST/v1", "names no host"),
    ("https://h:0/v1", "has a port that is not a number"),
    ("https://u@h/v1", "holds a user or password"),
    ("https://h/v1?a=b", "must end with its path"),
    ("https://h/v1/batch", "is the address of one call"),
    ("https://h /v1", "is not an address"),
    ("https://[::1/v1", "has a port that is not a number"),
]


@pytest.mark.parametrize(("old", "new", "expected"), VALUES)
def test_a_bad_value(tmp_path: Path, old: str, new: str, expected: str) -> None:
    found = problems(tmp_path, edited(old, new))
    assert any(f"config.toml:{expected}" in problem for problem in found), found


@pytest.mark.parametrize(("line", "expected"), STATUS)
def test_a_bad_status_table(tmp_path: Path, line: str, expected: str) -> None:
    (found,) = problems(tmp_path, f"[status]\n{line}\n{GOOD}")
    assert found.startswith(f"config.toml:2: status.{expected}")


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_a_placeholder_in_the_file_or_outside(tmp_path: Path, text: str) -> None:
    expected = (
        "config.toml:11: destinations.segment.write_key: is a placeholder, not a key; "
        "put the key into a variable or a file",
    )
    assert problems(tmp_path, edited("${KEY}", text)) == expected
    assert problems(tmp_path, GOOD, {"KEY": text}) == expected


@pytest.mark.parametrize(("url", "expected"), ENDPOINTS)
def test_a_bad_endpoint(tmp_path: Path, url: str, expected: str) -> None:
    (found,) = problems(tmp_path, edited('"${KEY}"', f'"${{KEY}}"\nendpoint = "{url}"'))
    assert found.startswith(f"config.toml:12: destinations.segment.endpoint: {expected}")


INTERPOLATED = [
    ("${NOPE}", "environment variable NOPE is not set (set it, or write ${NOPE:-default})"),
    ("${EMPTY}", "environment variable EMPTY is empty (set it, or write ${EMPTY:-default})"),
    ("${BYTES}", "environment variable BYTES is not UTF-8 text"),
    ("${file:nope}", 'nope" does not exist'),
    ("${file:}", "${file:…} names no file (write ${file:/path})"),
    ("${file:.}", "is a directory (name a file)"),
    ("${file:binary}", 'binary" is not UTF-8 text (save it as UTF-8)'),
    ("${file:nul}", 'nul" holds a NUL byte, so it is not text'),
    ("${file:empty}", 'empty" is empty'),
    ("${file:/dev/zero}", 'secret file "/dev/zero" is not a regular file'),
    (
        "${KEY",
        "has a ${…} that cannot be read (${NAME}, ${NAME:-default}, ${file:/path}; $${ is ${)",
    ),
    ("${}", "has a ${…} that cannot be read"),
    ("${A-b}", "has a ${…} that cannot be read"),
    ("${A:-${KEY}}", "has a ${…} that cannot be read"),
]


@pytest.mark.parametrize(("text", "expected"), INTERPOLATED)
def test_what_cannot_be_filled_in_is_told_where_it_is_used(
    tmp_path: Path, text: str, expected: str
) -> None:
    (tmp_path / "binary").write_bytes(b"\x89PNG\xff")
    (tmp_path / "nul").write_bytes(b"a\0b")
    (tmp_path / "empty").write_bytes(b"\n")
    (found,) = problems(tmp_path, edited("${KEY}", text))
    assert found.startswith("config.toml:11: destinations.segment.write_key: ")
    assert expected in found


def test_all_problems_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = GOOD.replace("state.db", "").replace('"${KEY}"', '"${NOPE}"').replace('"shop"', '"x"')
    text += SECOND.replace("Winback", "WINBACK").replace("query =", "qury =")
    lines = [problem.split(":")[1] for problem in problems(tmp_path, text)]
    assert lines == ["2", "11", "14", "17", "18", "20"]


COLLISIONS = [
    ("Winback", "Winback", "the same name as the audience at {}:13"),
    ("Winback", "WINBACK ", 'collides with "Winback" at {}:13 (they differ only in case'),
    ("Café", "Cafe\u0301", 'collides with "Café" at {}:13 (they differ only in case or in how'),
    (
        "Win back",
        "win_back",
        'trait key "win_back" is also that of the audience at {}:13 (write key',
    ),
    (
        "Win-back",
        "Win back",
        'trait key "win_back" is also that of the audience at {}:13 (write key',
    ),
]


@pytest.mark.parametrize(("first", "second", "expected"), COLLISIONS)
def test_audiences_that_collide(tmp_path: Path, first: str, second: str, expected: str) -> None:
    text = GOOD.replace("Winback", first) + SECOND.replace("Winback", second)
    (found,) = problems(tmp_path, text)
    place = f"config.toml:18: audiences[1].name: {expected}"
    assert found.startswith(place.format(tmp_path / "config.toml"))


@pytest.mark.parametrize("path", ["calls.ndjson", "./x/../calls.ndjson", "link"])
def test_two_destinations_with_one_file(tmp_path: Path, path: str) -> None:
    (tmp_path / "link").symlink_to("calls.ndjson")
    other = f'[destinations.other]\ntype = "ndjson"\npath = "{path}"\n'
    text = edited('["calls", "segment"]', '["calls", "segment", "other"]') + other
    (found,) = problems(tmp_path, text)
    assert found == (
        "config.toml:19: destinations.other.path: the same file as of the destination at "
        f"{tmp_path}/config.toml:8 (give each a file of its own)"
    )


def test_two_audiences_with_the_same_explicit_key(tmp_path: Path) -> None:
    text = GOOD + SECOND.replace('"Winback"', '"Other"\nkey = "winback"')
    (found,) = problems(tmp_path, text)
    assert found.startswith('config.toml:19: audiences[1].key: trait key "winback" is also that of')


MISPLACED = [
    ('"shop"', '"${KEY}"', 'unknown source "${KEY}" (known: "shop")'),
    ('"segment"]', '"${KEY}"]', 'unknown destination "${KEY}"'),
    ('type = "files"', 'type = "${KEY}"', 'unknown type "${KEY}"'),
    ('name = "Winback"', 'name = "x"\nkey = "${KEY}"', '"${KEY}" must start with a letter'),
    ('name = "Winback"', 'name = "x"\nevery = "${KEY}"', 'a number and a unit, such as "30m", '),
    ('name = "Winback"', 'name = "x"\ntell = ["${KEY}"]', '"${KEY}" is not accepted'),
    ('query = "SELECT 1"', 'query_file = "${KEY}.sql"', '"${KEY}.sql" does not exist'),
    ('url = "sqlite:///state.db"', 'url = "${KEY}"', "is not an address"),
    ('url = "sqlite:///state.db"', 'url = "postgresql://u:${KEY}@@h/d"', "cannot be taken apart"),
    ('url = "sqlite:///state.db"', 'url = "postgresql://u:1/${KEY}@h/d"', "cannot be taken apart"),
    ("[store]", 'include = ["${KEY}.toml"]\n[store]', 'file "${KEY}.toml" does not exist'),
    ("[store]", 'schedule.timezone = "${KEY}"\n[store]', "unknown timezone"),
    ("[store]", 'guard.floor = "${KEY}"\n[store]', "expected an integer, found a string"),
    ('write_key = "${KEY}"', f'write_key = ["{KEY}"]', "expected a string, found an array"),
    ('write_key = "${KEY}"', f'write_key = "{KEY} "', "holds white space"),
    ('write_key = "${KEY}"', f'write_key = "a"\nendpoint = "http://u:{KEY}@h/"', "holds a user or"),
]


@pytest.mark.parametrize(("old", "new", "expected"), MISPLACED)
def test_no_message_holds_a_secret_wherever_it_was_put(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    found = problems(tmp_path, edited(old, new))  # asserts that KEY is in none of them
    assert any(expected in problem for problem in found), found


def test_a_secret_is_in_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(edited('"shop"', '"x"'))
    with pytest.raises(ConfigError) as caught:
        load([tmp_path / "config.toml"], ENVIRON)
    seen: BaseException | None = caught.value
    while seen is not None:
        assert KEY not in repr(seen)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
