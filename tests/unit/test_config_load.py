"""What a good configuration becomes: defaults, includes, merges, warnings, secrets, the schema."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import make_url

from audience_sync.config.load import Loaded, load
from audience_sync.config.model import NdjsonDestination, SegmentDestination, Written
from audience_sync.config.schema import schema
from audience_sync.domain.audience import Kind, OnRetire, State, Tell
from audience_sync.domain.guard import Limits
from audience_sync.domain.schedule import Every
from audience_sync.errors import ConfigError
from tests.fakes.nobody import as_nobody, open_folder

ROOT = Path(__file__).parents[2]

SMALLEST = """\
[sources.shop]
type = "files"
root = "data"
[destinations.calls]
type = "ndjson"
path = "out/calls.ndjson"
[[audiences]]
name = "Order Completed Last 30days"
source = "shop"
query = "SELECT 1"
destinations = ["calls"]
"""
SEGMENT = '[destinations.segment]\ntype = "segment"\nwrite_key = "{}"\n'
TRAIT = """\
[[computed_traits]]
name = "Lifetime Value"
source = "shop"
query = "SELECT 1"
destinations = ["calls"]
"""
AUDIENCE = SMALLEST[SMALLEST.index("[[audiences]]") :]


def loaded(
    folder: Path, text: str, environ: dict[str, str] | None = None, name: str = "config.toml"
) -> Loaded:
    (folder / name).write_text(text, encoding="utf-8")
    return load([folder / name], environ or {})


def with_segment(write_key: str) -> str:
    text = SMALLEST.replace('["calls"]', '["calls", "segment"]')
    return text.replace("[[aud", SEGMENT.format(write_key) + "[[aud")


def test_defaults(tmp_path: Path) -> None:
    result = loaded(tmp_path, SMALLEST)
    config = result.config
    assert result.warnings == ()
    assert result.secrets == frozenset()
    assert result.folder == tmp_path
    assert config.store.url == f"sqlite:///{tmp_path}/audience_sync.db"
    assert config.store.keep == timedelta(days=30)
    assert config.schedule.every == Every(timedelta(hours=2), timedelta(hours=3))
    assert config.schedule.timezone is UTC
    assert config.guard == Limits()
    assert config.engine.memory_limit == 768_000_000
    assert config.engine.threads >= 1
    assert config.engine.spill.name == f"audience-sync-spill-{os.geteuid()}"
    assert config.engine.spill.is_absolute()
    assert config.sources["shop"].root == tmp_path / "data"
    (audience,) = config.audiences
    assert audience.key == "order_completed_last_30days"
    assert audience.cadence == config.schedule.every
    assert audience.limits == Limits()
    assert audience.tell == {Tell.ENTERED, Tell.EXITED}
    assert (audience.owner, audience.description, audience.tags) == (None, None, ())
    assert (audience.kind, audience.explicit_key) == (Kind.AUDIENCE, False)
    assert (audience.state, audience.on_retire) == (State.ACTIVE, OnRetire.TELL_FALSE)


def test_ndjson(tmp_path: Path) -> None:
    calls = loaded(tmp_path, SMALLEST).config.destinations["calls"]
    assert isinstance(calls, NdjsonDestination)
    assert calls.path == tmp_path / "out" / "calls.ndjson"
    assert (calls.rate, calls.reserve) == (1_000_000.0, 0.2)
    assert calls.calls == ["identify"]


def test_segment_defaults(tmp_path: Path) -> None:
    segment = loaded(tmp_path, with_segment("${K}"), {"K": "abc12345"}).config.destinations[
        "segment"
    ]
    assert isinstance(segment, SegmentDestination)
    assert segment.write_key == "abc12345"
    assert segment.endpoint == "https://api.segment.io/v1"
    assert segment.calls == ["identify"]
    assert segment.integrations == {}
    assert (segment.rate, segment.reserve) == (1000.0, 0.2)
    assert (segment.concurrency, segment.batch) == (8, 500)
    assert segment.deadline == timedelta(seconds=30)
    assert "abc12345" not in repr(segment)


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "vip.sql").write_text("SELECT ${not filled} FROM 'orders.csv'\n")
    text = (
        "store = { url = 'sqlite+pysqlite:///a/../s.db?x=1', keep = '12w' }\n"
        "schedule = { every = '0 */3 * * *', timezone = 'Europe/Berlin' }\n"
        "guard = { max_exits = '0.5 %', max_exits_24h = '2400%', floor = 7 }\n"
        "engine = { memory_limit = '1.5GiB', threads = 3, spill = 'tmp' }\n"
        + with_segment("${K}")
        .replace(
            "[[aud",
            'endpoint = "http://localhost:8080/v1/"\ncalls = ["identify", "track"]\n'
            'rate = "600/min"\nreserve = "50%"\n'
            'integrations = { All = false, Crisp = { a = [1, "x", { b = 0.5 }] } }\n[[aud',
        )
        .replace('query = "SELECT 1"', 'query_file = "vip.sql"\nkey = "vips"\nevery = "90m"\n')
        + 'guard = { max_exits = "100%" }\ntell = ["updated"]\nowner = "crm"\n'
        'description = "x"\ntags = ["a", "b"]\nstate = "retired"\non_retire = "leave"\n'
    )
    config = loaded(tmp_path, text, {"K": "abc12345"}).config
    assert config.store.url == f"sqlite+pysqlite:///{tmp_path}/s.db?x=1"
    assert config.store.keep == timedelta(weeks=12)
    assert config.schedule.timezone == ZoneInfo("Europe/Berlin")
    assert config.schedule.every.next_after(
        datetime(2026, 1, 1, 0, 30, tzinfo=UTC), 0.5
    ) == datetime(2026, 1, 1, 2, 0, tzinfo=UTC)
    assert config.guard == Limits(max_exits=0.005, max_exits_24h=24.0, floor=7)
    assert config.engine.memory_limit == 3 * 2**29
    assert (config.engine.threads, config.engine.spill) == (3, tmp_path / "tmp")
    segment = config.destinations["segment"]
    assert isinstance(segment, SegmentDestination)
    assert segment.endpoint == "http://localhost:8080/v1"
    assert segment.calls == ["identify", "track"]
    assert (segment.rate, segment.reserve) == (10.0, 0.5)
    assert segment.integrations == {"All": False, "Crisp": {"a": [1, "x", {"b": 0.5}]}}
    (audience,) = config.audiences
    assert audience.key == "vips"
    assert audience.query == "SELECT ${not filled} FROM 'orders.csv'\n"
    assert audience.cadence == Every(timedelta(minutes=90), timedelta(minutes=90))
    assert audience.limits == Limits(max_exits=1.0, max_exits_24h=24.0, floor=7)
    assert audience.tell == {Tell.UPDATED}
    assert (audience.owner, audience.description, audience.tags) == ("crm", "x", ("a", "b"))
    assert (audience.kind, audience.explicit_key) == (Kind.AUDIENCE, True)
    assert (audience.state, audience.on_retire) == (State.RETIRED, OnRetire.LEAVE)


def test_a_computed_trait_tells_every_change(tmp_path: Path) -> None:
    (tmp_path / "value.sql").write_text("SELECT 2")
    text = TRAIT.replace('query = "SELECT 1"', 'query_file = "value.sql"\nevery = "1h"')
    config = loaded(tmp_path, SMALLEST + text + 'state = "paused"\nguard.floor = 3\n').config
    audience, trait = config.audiences
    assert (audience.kind, audience.key) == (Kind.AUDIENCE, "order_completed_last_30days")
    assert (trait.kind, trait.key) == (Kind.COMPUTED_TRAIT, "lifetime_value")
    assert trait.tell == {Tell.ENTERED, Tell.EXITED, Tell.UPDATED}
    assert trait.query == "SELECT 2"
    assert trait.cadence == Every(timedelta(hours=1), timedelta(hours=1))
    assert (trait.state, trait.limits) == (State.PAUSED, Limits(floor=3))


def test_computed_traits_alone_are_enough_and_are_added_over_files(tmp_path: Path) -> None:
    (tmp_path / "more.toml").write_text(TRAIT.replace("Lifetime", "Last"))
    text = SMALLEST.replace(AUDIENCE, TRAIT)
    config = loaded(tmp_path, 'include = ["more.toml"]\n' + text).config
    assert [trait.key for trait in config.audiences] == ["lifetime_value", "last_value"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user@host/db",
        "postgresql+psycopg://postgres@/test_1?host=%2Ftmp%2Fpg-1",
        "postgresql://u:${PW}@[::1]:5432/db",
        "sqlite:////var/lib/state.db",
    ],
)
def test_store_urls_that_stay_as_they_are(tmp_path: Path, url: str) -> None:
    text = f'store.url = "{url}"\n' + SMALLEST
    config = loaded(tmp_path, text, {"PW": "pass%2Fword"}).config
    assert config.store.url == url.replace("${PW}", "pass%2Fword")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8:99", "[::1]:8080"])
def test_http_to_loopback(tmp_path: Path, host: str) -> None:
    text = with_segment("${K}").replace("[[aud", f'endpoint = "http://{host}"\n[[aud')
    segment = loaded(tmp_path, text, {"K": "abc12345"}).config.destinations["segment"]
    assert isinstance(segment, SegmentDestination)
    assert segment.endpoint == f"http://{host}"


@pytest.mark.parametrize("name", ["what?", "My Documents", "100%20", "Größe #1", "a\nb", "a:b@c"])
@pytest.mark.parametrize("url", [None, "sqlite:///audience_sync.db"])
def test_a_store_in_a_folder_of_any_name(tmp_path: Path, name: str, url: str | None) -> None:
    folder = tmp_path / name
    folder.mkdir()
    text = f'store.url = "{url}"\n' + SMALLEST if url else SMALLEST
    found = loaded(folder, text).config.store.url
    assert make_url(found).database == str(folder / "audience_sync.db")
    assert not make_url(found).query


def test_a_store_file_may_have_spaces_in_its_name(tmp_path: Path) -> None:
    found = loaded(tmp_path, 'store.url = "sqlite:///my state.db"\n' + SMALLEST).config.store.url
    assert make_url(found).database == str(tmp_path / "my state.db")


def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    folder = tmp_path / "\udcff"
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"store\.url: lies in a folder whose name is not UTF-8"):
        loaded(folder, SMALLEST)


def test_a_current_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    os.chdir("gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match=r"^config\.toml: does not exist \(audience-sync init"):
        load([Path("config.toml")], {})


def test_without_any_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose disk is read-only. It is told when the folder is needed."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: os.stat("/nowhere"))
    assert loaded(tmp_path, SMALLEST).config.engine.spill.parent == Path("/tmp")


# Includes and several files


def test_paths_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    for folder in ("audiences", "deploy"):
        (tmp_path / folder).mkdir()
    (tmp_path / "audiences" / "vip.toml").write_text(
        AUDIENCE.replace('query = "SELECT 1"', 'query_file = "vip.sql"').replace("Order", "VIP")
    )
    (tmp_path / "audiences" / "vip.sql").write_text("SELECT 2")
    (tmp_path / "deploy" / "production.toml").write_text(
        '[store]\nurl = "sqlite:///s.db"\n[sources.shop]\nroot = "d"\n'
    )
    (tmp_path / "config.toml").write_text('include = ["audiences/*.toml"]\n' + SMALLEST)
    paths = [tmp_path / "config.toml", tmp_path / "deploy" / "production.toml"]
    result = load(paths, {})
    assert result.folder == tmp_path
    assert result.config.store.url == f"sqlite:///{tmp_path}/deploy/s.db"
    assert result.config.sources["shop"].root == tmp_path / "deploy" / "d"
    assert [audience.query for audience in result.config.audiences] == ["SELECT 1", "SELECT 2"]


def test_later_files_win_table_by_table_and_the_default_store_stays(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.toml").write_text(
        '[store]\nkeep = "3d"\n[guard]\nfloor = 9\n[destinations.calls]\nrate = "5/s"\n'
    )
    (tmp_path / "a.toml").write_text('[guard]\nfloor = 1\nmax_exits = "1%"\n' + SMALLEST)
    config = load([tmp_path / "a.toml", tmp_path / "more" / "b.toml"], {}).config
    assert config.store.url == f"sqlite:///{tmp_path}/audience_sync.db"
    assert config.guard == Limits(floor=9, max_exits=0.01)
    assert config.destinations["calls"].rate == 5.0


def test_a_value_that_is_overridden_is_not_filled_in(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(with_segment("${NOT_HERE}"))
    (tmp_path / "b.toml").write_text(SEGMENT.format("${K}"))
    config = load([tmp_path / "a.toml", tmp_path / "b.toml"], {"K": "abc12345"}).config
    assert "segment" in config.destinations


def test_files_that_include_each_other_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text('include = ["*.toml"]\n' + AUDIENCE.replace("Order", "B"))
    result = loaded(tmp_path, 'include = ["${B:-b}.toml", "*.toml"]\n' + SMALLEST)
    assert len(result.config.audiences) == 2


def test_problems_name_the_included_file_and_its_own_line_and_index(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text(
        "# b\n" + AUDIENCE.replace("Order", "B").replace("source", "sorce")
    )
    (tmp_path / "c.toml").write_text("# c\n\n" + AUDIENCE.replace('"calls"', '"cals"'))
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, 'include = ["[bc].toml"]\n' + SMALLEST)
    assert caught.value.problems == (
        f"{tmp_path}/b.toml:2: audiences[0].source: is missing",
        f'{tmp_path}/b.toml:4: audiences[0].sorce: unknown key (did you mean "source"?)',
        f"{tmp_path}/c.toml:4: audiences[0].name: the same name as the audience at "
        f"{tmp_path}/config.toml:9 (rename one)",
        f'{tmp_path}/c.toml:7: audiences[0].destinations[0]: unknown destination "cals" '
        '(did you mean "calls"?)',
    )


def test_problems_of_computed_traits_have_their_own_index(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("# b\n" + TRAIT.replace("SELECT 1", ""))
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, 'include = ["b.toml"]\n' + SMALLEST + TRAIT)
    assert caught.value.problems == (
        f"{tmp_path}/b.toml:3: computed_traits[0].name: the same name as the computed trait at "
        f"{tmp_path}/config.toml:14 (rename one)",
        f"{tmp_path}/b.toml:5: computed_traits[0].query: the query is empty",
    )


def test_an_override_is_told_at_the_overriding_line(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("guard.floor = 1\n" + SMALLEST)
    (tmp_path / "b.toml").write_text("\n\n[guard]\nfloor = -1\n")
    with pytest.raises(ConfigError) as caught:
        load([tmp_path / "a.toml", tmp_path / "b.toml"], {})
    assert caught.value.problems == (
        f"{tmp_path}/b.toml:4: guard.floor: must be at least 0 (found -1)",
    )


def test_a_broken_file_hides_no_problem_of_another_and_invents_none(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[sources.shop\n")
    overrides = '[destinations.calls]\nrate = "5/s"\n[sources.shop]\nroot = "d"\n'
    (tmp_path / "b.toml").write_text(overrides + AUDIENCE + 'tell = ["left"]\n')
    with pytest.raises(ConfigError) as caught:
        load([tmp_path / "a.toml", tmp_path / "b.toml", tmp_path / "no.toml"], {})
    places = [problem.split("/")[-1].split(": ")[0] for problem in caught.value.problems]
    assert places == ["a.toml:1:14", "b.toml:10", "no.toml"]


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        ('"b.toml"', ":1: include: expected an array of strings"),
        ('["b.toml"]', ':1: include[0]: file "b.toml" does not exist'),
        ('[\n"*.toml",\n3]', ":3: include[1]: expected a path or a pattern"),
        ('["${NOPE}"]', ":1: include[0]: environment variable NOPE is not set"),
        ('["."]', ": is a directory (name a file)"),
    ],
)
def test_a_bad_include(tmp_path: Path, include: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, f"include = {include}\n" + SMALLEST)
    assert expected in str(caught.value)


@pytest.mark.parametrize("include", ["inc/*.toml", "inc/a.toml", "inc/**/a.toml", "inc/b/*.toml"])
def test_a_folder_that_may_not_be_read_is_not_an_empty_folder(include: str) -> None:
    with open_folder() as folder:
        (folder / "config.toml").write_text(f'include = ["{include}"]\n' + SMALLEST)
        (folder / "inc").mkdir(mode=0o700)
        with as_nobody(), pytest.raises(ConfigError) as caught:
            load([folder / "config.toml"], {})
    expected = f'config.toml:1: include[0]: the folder of "{include}" may not be read'
    assert str(caught.value).endswith(expected)


# Warnings and secrets


WARNINGS = [
    (SMALLEST + '[sources.other]\ntype = "files"\nroot = "x"\n', ":12: sources.other: no audience"),
    (SMALLEST + SEGMENT.format("${K}"), ":12: destinations.segment: no audience uses it"),
    ('include = ["more/*.toml"]\n' + SMALLEST, ':1: include[0]: no file matches "more/*.toml"'),
    (with_segment("AbC12345"), ":9: destinations.segment.write_key: the secret stands in the file"),
    (with_segment("${NO:-AbC12345}"), ":9: destinations.segment.write_key: the secret stands in"),
]


@pytest.mark.parametrize(("text", "expected"), WARNINGS)
def test_warnings(tmp_path: Path, text: str, expected: str) -> None:
    (warning,) = loaded(tmp_path, text, {"K": "abc12345"}).warnings
    assert warning.startswith(f"{tmp_path}/config.toml{expected}")
    assert "AbC12345" not in warning


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_secret_file_that_everybody_can_read(tmp_path: Path, mode: int, warned: bool) -> None:
    secret = tmp_path / "key"
    secret.write_text("abc12345\r\n")
    secret.chmod(mode)
    result = loaded(tmp_path, with_segment("${file:key}"))
    expected = f'destinations.segment.write_key: secret file "{secret}" can be read by everyone'
    assert [expected in warning for warning in result.warnings] == [True] * warned
    assert result.secrets == {"abc12345"}


def test_secrets_are_remembered(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("p%40ssword")
    text = (
        'store.url = "postgresql://u:${file:pw}@${HOST}/db?sslpassword=${SSL}"\n'
        + with_segment("k-${K}").replace("[[aud", 'integrations.X = { a = "${OPAQUE}" }\n[[aud')
    ).replace('"SELECT 1"', '"SELECT ${API_TOKEN} ${PLACE}"')
    environ = {
        "HOST": "db.internal",
        "SSL": "ssl-pass",
        "K": "abc12345",
        "OPAQUE": "opaque-1",
        "API_TOKEN": "token-12",
        "PLACE": "Berlin",
    }
    assert loaded(tmp_path, text, environ).secrets == {
        "p%40ssword",
        "p@ssword",
        "ssl-pass",
        "k-abc12345",
        "abc12345",
        "opaque-1",
        "token-12",
    }


# The status server


STATUS_TOKEN = "4fb2c19e07d86a35"


def test_without_the_table_nothing_listens(tmp_path: Path) -> None:
    assert loaded(tmp_path, SMALLEST).config.status is None


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", ("127.0.0.1", 8340)),
        ('listen = "localhost:9000"', ("127.0.0.1", 9000)),
        ('listen = "[0:0::1]:0"', ("::1", 0)),
        ('listen = "127.8.8.8:1"', ("127.8.8.8", 1)),
        ('listen = "0.0.0.0:8340"\ntoken = "${TOKEN}"', ("0.0.0.0", 8340)),
        ('listen = "[::]:65535"\ntoken = "${TOKEN}"', ("::", 65535)),
    ],
)
def test_where_the_status_server_listens(
    tmp_path: Path, lines: str, expected: tuple[str, int]
) -> None:
    found = loaded(tmp_path, f"[status]\n{lines}\n{SMALLEST}", {"TOKEN": STATUS_TOKEN})
    assert found.config.status is not None
    assert tuple(found.config.status.listen) == expected
    assert found.warnings == ()
    assert found.secrets == ({STATUS_TOKEN} if "TOKEN" in lines else set())
    assert STATUS_TOKEN not in repr(found.config)


def test_the_names_of_the_status_server(tmp_path: Path) -> None:
    found = loaded(tmp_path, f'[status]\nhosts = ["Sync.Example.com.", "node-7"]\n{SMALLEST}')
    assert found.config.status is not None
    assert found.config.status.hosts == ["sync.example.com", "node-7"]


def test_a_status_token_in_the_file_is_a_warning(tmp_path: Path) -> None:
    found = loaded(tmp_path, f'[status]\ntoken = "{STATUS_TOKEN}"\n{SMALLEST}')
    (warning,) = found.warnings
    assert "status.token: the secret stands in the file itself" in warning
    assert "${STATUS_TOKEN}" in warning
    assert found.secrets == {STATUS_TOKEN}


# The example, the schema, the imports


def test_the_example_is_good_as_it_stands() -> None:
    result = load([ROOT / "config.toml"], {})
    assert result.warnings == ()
    assert [audience.key for audience in result.config.audiences] == [
        "order_completed_last_30days",
        "vips_2026",
        "lifetime_value",
    ]
    assert result.config.guard == Limits()
    assert result.config.store.url == f"sqlite:///{ROOT}/state.db"
    assert (result.config.sources["shop"].root / "orders.csv").is_file()
    assert (ROOT / "config.toml").read_text().startswith("#:schema ./config.schema.json\n")


def test_what_the_example_comments_out_is_good_too(tmp_path: Path) -> None:
    text = (ROOT / "config.toml").read_text()
    start = text.index("# [destinations.segment]")
    end = text.index("\n\n", start)
    segment = "\n".join(line.removeprefix("# ") for line in text[start:end].split("\n"))
    text = (text[:start] + segment + text[end:]).replace('["calls"]', '["calls", "segment"]')
    config = loaded(tmp_path, text, {"SEGMENT_WRITE_KEY": "abc12345"}).config
    plain = loaded(tmp_path, with_segment("abc12345")).config.destinations["segment"]
    shown = config.destinations["segment"]
    assert isinstance(shown, SegmentDestination)
    assert isinstance(plain, SegmentDestination)
    # It shows every key, and the defaults as they are.
    assert shown.model_fields_set == set(SegmentDestination.model_fields)
    assert shown.quota == 1_000_000
    assert shown.model_copy(update={"integrations": {}, "quota": None}) == plain


def test_the_schema_describes_what_a_person_writes() -> None:
    written = schema()
    json.dumps(written)
    tables = written["$defs"]
    assert set(written["properties"]) == set(Written.model_fields)
    assert written["additionalProperties"] is False
    assert "required" not in written
    traits = tables["ComputedTraitTable"]
    assert set(tables["AudienceTable"]["properties"]) - set(traits["properties"]) == {"tell"}
    assert traits["properties"]["state"]["enum"] == ["active", "paused", "retired"]
    calls = tables["SegmentDestination"]["properties"]["calls"]
    assert calls["enum"] == [["identify"], ["identify", "track"]]
    guard = tables["GuardTable"]["properties"]
    assert (guard["max_exits"]["type"], guard["max_exits"]["default"]) == ("string", "20%")
    every = tables["AudienceTable"]["properties"]["every"]
    assert every["type"] == "string"
    assert "2h..3h" in every["examples"]
    assert "default" not in every
    assert tables["SegmentDestination"]["required"] == ["type", "write_key"]
    assert tables["Engine"]["properties"]["memory_limit"]["default"] == "768MB"
    assert '"null"' not in json.dumps(written)


def test_defaults_in_the_schema_are_good_configuration(tmp_path: Path) -> None:
    tables = schema()["$defs"]
    for name in ("Store", "ScheduleTable", "GuardTable", "Engine"):
        for key, field in tables[name]["properties"].items():
            if "default" in field:
                table = name.removesuffix("Table").lower()
                loaded(tmp_path, f"{table}.{key} = {json.dumps(field['default'])}\n" + SMALLEST)


def test_loading_imports_no_engine_database_or_network(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(SMALLEST)
    code = (
        "import sys; from pathlib import Path; from audience_sync.config.load import load\n"
        "load([Path('config.toml')], {})\n"
        "heavy = ('sqlalchemy', 'duckdb', 'httpx', 'apscheduler', 'pyarrow')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert run.stdout.strip() == "[]"
