"""Sources of type sql: addresses, drivers, secrets, and files beside the configuration."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from audience_sync.config.load import Loaded, load
from audience_sync.config.model import SqlSource
from audience_sync.errors import ConfigError

SECRET = "pw-cänary/93f1"
ENCODED = "pw-c%C3%A4nary%2F93f1"
REST = """
[destinations.calls]
type = "ndjson"
path = "calls.ndjson"
[[audiences]]
name = "Winback"
source = "db"
query = "SELECT 1"
destinations = ["calls"]
"""
ENVIRON = {
    "URL": f"postgresql://reader:{ENCODED}@db.example.com/shop",
    "PW": ENCODED,
    "PLAIN": SECRET,
    "HOST": "db.example.com",
}


def loaded(folder: Path, source: str) -> Loaded:
    (folder / "config.toml").write_text(f'[sources.db]\ntype = "sql"\n{source}\n{REST}')
    return load([folder / "config.toml"], ENVIRON)


def source(folder: Path, text: str) -> SqlSource:
    found = loaded(folder, text).config.sources["db"]
    assert isinstance(found, SqlSource)
    return found


def problem(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text)
    for form in (SECRET, ENCODED):
        assert form not in str(caught.value)
    (found,) = caught.value.problems
    return found.partition("config.toml:")[2]


def test_what_is_left_out(tmp_path: Path) -> None:
    found = source(tmp_path, 'url = "${URL}"')
    assert (found.url, found.connect_args) == (ENVIRON["URL"], {})
    assert (found.timeout, found.freshness) == (timedelta(minutes=15), None)
    assert SECRET not in repr(found)
    assert ENCODED not in repr(found)


def test_files_are_beside_the_configuration_that_names_them(tmp_path: Path) -> None:
    for scheme in ("sqlite", "duckdb", "sqlite+pysqlite"):
        found = source(tmp_path, f'url = "{scheme}:///data/shop.db?immutable=1"')
        assert found.url == f"{scheme}:///{tmp_path}/data/shop.db?immutable=1"
        assert source(tmp_path, f'url = "{scheme}:////srv/shop.db"').url.endswith(
            ":////srv/shop.db"
        )
    assert not (tmp_path / "data").exists()


def test_secrets_are_known_in_every_form(tmp_path: Path) -> None:
    for text in ('url = "${URL}"', 'url = "postgresql://reader:${PW}@${HOST}/shop"'):
        assert {SECRET, ENCODED} <= loaded(tmp_path, text).secrets
    text = 'url = "sqlite:///shop.db"\nconnect_args = { any = { thing = ["${PLAIN}"] } }'
    assert SECRET in loaded(tmp_path, text).secrets
    text = 'url = "bigquery+x://p?credentials_base64=${PLAIN}"'
    with pytest.raises(ConfigError):
        loaded(tmp_path, text)


def test_a_secret_in_the_file_itself(tmp_path: Path) -> None:
    found = loaded(tmp_path, f'url = "sqlite:///s.db"\nconnect_args = {{ password = "{SECRET}" }}')
    (warning,) = found.warnings
    assert warning.endswith(
        "config.toml:4: sources.db.connect_args.password: the secret stands in the file itself "
        '(write "${PASSWORD}" or "${file:/path}")'
    )
    assert SECRET in found.secrets
    assert "a password stands in the file itself" in problem(
        tmp_path, f'url = "postgresql://reader:{ENCODED}@db/shop"'
    )


PROBLEMS = {
    'url = "shop.db"': "3: sources.db.url: is not an address like scheme://host/path",
    'url = "postgres://reader@db/shop"': "unknown database driver; write postgresql://",
    'url = "postgresq://reader@db/shop"': "unknown database driver; write postgresql://",
    'url = "postgresql+asyncpg://reader@db/shop"': "names another driver than psycopg; write",
    'url = "xyzzy://db"': "unknown database driver; install a package with a dialect for SQLAl",
    'url = "snowflake://reader@org-account/db"': "that is not installed: pip install "
    "snowflake-sqlalchemy",
    'url = "sqlite://"': "names no file; write its path: sqlite:///shop.db",
    'url = "sqlite:///:memory:"': "names no file",
    'url = "sqlite://shop.db"': "names a host; a file has three slashes",
    'url = "postgresql://<user>@db/shop"': "holds a placeholder",
    'url = "postgresql://reader:${PLAIN}@db/shop"': "percent-encode @ : / in user",
    'url = "${URL}"\ntimeout = "2d"': "4: sources.db.timeout: must be from 1s to 1d",
    'url = "${URL}"\ntimeout = 60': "4: sources.db.timeout: expected a string, found an integer",
    'url = "${URL}"\nconnect_args = []': "4: sources.db.connect_args: expected a table, found an",
    'url = "${URL}"\nconnect_args = { since = 2026-01-01 }': "4: sources.db.connect_args.since: "
    "holds a date",
    'url = "${URL}"\nfreshness = { max_age = "6h" }': "4: sources.db.freshness.query: is missing",
    'url = "${URL}"\nfreshness = { query = "SELECT 1" }': "freshness.max_age: is missing",
    'url = "${URL}"\nfreshness = { query = "SELECT 1", max_age = "1s" }': "must be from 1m to 366d",
    'url = "${URL}"\nfreshness = { query = "SELECT 1", max_age = "6h", maxage = "6h" }': "unknown "
    'key (did you mean "max_age"?)',
    'url = "${URL}"\nroot = "data"': "4: sources.db.root: unknown key",
}


@pytest.mark.parametrize(("text", "words"), PROBLEMS.items(), ids=PROBLEMS)
def test_problems_are_told_at_their_place(tmp_path: Path, text: str, words: str) -> None:
    assert words in problem(tmp_path, text)


def test_freshness_of_files(tmp_path: Path) -> None:
    files = f'[sources.db]\ntype = "files"\nroot = "."\nfreshness = {{ max_age = "6h" }}\n{REST}'
    (tmp_path / "config.toml").write_text(files)
    found = load([tmp_path / "config.toml"], {}).config.sources["db"]
    assert found.freshness is not None
    assert (found.freshness.max_age, found.freshness.query) == (timedelta(hours=6), None)
