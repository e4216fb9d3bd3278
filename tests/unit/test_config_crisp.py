"""``type = "crisp"`` of a destination: what is taken, and what is told of what is not (P18)."""

from __future__ import annotations

from pathlib import Path

import pytest

from audience_sync.config.crisp import CrispDestination
from audience_sync.config.load import Loaded, load
from audience_sync.errors import ConfigError

SECRET = "k-canary-93f1"
ENVIRON = {"KEY": f"1b2c-id:{SECRET}", "NO_COLON": SECRET, "HALF": f":{SECRET}", "ID": "1b2c-id:"}
GOOD = """\
[sources.shop]
type = "files"
root = "data"
[destinations.crisp]
type = "crisp"
api_key = "${KEY}"
[[audiences]]
name = "Winback"
source = "shop"
query = "SELECT 1"
destinations = ["crisp"]
"""


def loaded(folder: Path, *lines: str, text: str = GOOD) -> Loaded:
    path = folder / "config.toml"
    path.write_text(text.replace('"${KEY}"\n', '"${KEY}"\n' + "".join(f"{one}\n" for one in lines)))
    return load([path], ENVIRON)


def crisp(folder: Path, *lines: str) -> CrispDestination:
    found = loaded(folder, *lines).config.destinations["crisp"]
    assert isinstance(found, CrispDestination)
    return found


def problems(folder: Path, *lines: str, text: str = GOOD) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, *lines, text=text)
    assert SECRET not in str(caught.value)
    return [problem.removeprefix(f"{folder}/") for problem in caught.value.problems]


def test_little_is_needed(tmp_path: Path) -> None:
    found = crisp(tmp_path)
    assert found.api_key == ENVIRON["KEY"]
    assert (found.tier, found.website_id, found.rate, found.bulk) == ("plugin", None, 10, False)
    assert found.deadline.total_seconds() == 10
    assert SECRET not in repr(found)


def test_the_key_is_hidden_whole_and_by_itself(tmp_path: Path) -> None:
    assert {ENVIRON["KEY"], SECRET} <= loaded(tmp_path).secrets


@pytest.mark.parametrize(
    ("lines", "quota"),
    [
        ((), 5_000),
        (('tier = "website"', 'website_id = "w-1"'), 10_000),
        (('tier = "user"', 'website_id = "w-1"'), None),
        (('tier = "user"', 'website_id = "w-1"', 'quota = "70/day"'), 70),
        (('quota = "50_000/day"',), 50_000),
    ],
)
def test_the_quota_is_that_of_the_tier(
    tmp_path: Path, lines: tuple[str, ...], quota: int | None
) -> None:
    assert crisp(tmp_path, *lines).requests_a_day == quota


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            'bulk = true\ncalls = ["identify", "track"]',
            '7: destinations.crisp.bulk: is of no use beside "track"',
        ),
        ('bulk = "yes"', "7: destinations.crisp.bulk: expected true or false"),
        ('tier = "gold"', "7: destinations.crisp.tier: "),
        ('tier = "website"', "7: destinations.crisp.tier: a key of the tier website cannot be"),
        ('tier = "user"', "7: destinations.crisp.tier: a key of the tier user cannot be asked"),
        ('website_id = "YOUR_WEBSITE_ID"', "7: destinations.crisp.website_id: is a placeholder"),
        ('website_id = "a/b"', "7: destinations.crisp.website_id: is no id of a website"),
        ('website_id = ""', "7: destinations.crisp.website_id: is no id of a website"),
        ('endpoint = "http://api.crisp.chat/v1"', "7: destinations.crisp.endpoint: "),
        ('quota = "4/day"', "7: destinations.crisp.quota: with this reserve"),
        ("write_key = 1", "7: destinations.crisp.write_key: unknown key"),
        ('deadline = "10m"', "7: destinations.crisp.deadline: must be from 1s to 45s"),
        ("concurrency = 65", "7: destinations.crisp.concurrency: "),
    ],
)
def test_what_cannot_be(tmp_path: Path, line: str, expected: str) -> None:
    found = problems(tmp_path, line)
    assert any(problem.startswith(f"config.toml:{expected}") for problem in found), found


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("${NO_COLON}", "must be the identifier and the key, with a colon between them"),
        ("${HALF}", "must be the identifier and the key"),
        ("${ID}", "must be the identifier and the key"),
        ("YOUR_ID:YOUR_KEY", "is a placeholder"),
        ("a:b:c", "holds white space, a colon or"),
    ],
)
def test_a_key_is_an_identifier_and_a_key(tmp_path: Path, key: str, expected: str) -> None:
    (found,) = problems(tmp_path, text=GOOD.replace("${KEY}", key))
    assert found.startswith(f"config.toml:6: destinations.crisp.api_key: {expected}")


def test_a_key_in_the_file_is_warned_of(tmp_path: Path) -> None:
    found = loaded(tmp_path, text=GOOD.replace("${KEY}", "1b2c:k-9"))
    assert any("${CRISP_API_KEY}" in warning for warning in found.warnings)


def test_bulk(tmp_path: Path) -> None:
    assert crisp(tmp_path, "bulk = true", 'calls = ["identify"]').bulk


def test_a_server_of_this_machine_needs_no_tls(tmp_path: Path) -> None:
    assert crisp(tmp_path, 'endpoint = "http://127.0.0.1:8350/v1"').endpoint
