"""The example shop in a real PostgreSQL, from ``check`` to the second ``sync``."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from sqlalchemy import make_url

from tests.acceptance.program import TOP, Done, Program

SHOP = TOP / "examples" / "shop"
PASSWORD = "Pw/5%ecret+7"
"""Different in every form in which it may travel; the server asks for none."""

FORMS = {PASSWORD, quote(PASSWORD, safe=""), b64encode(PASSWORD.encode()).decode().rstrip("=")}
TABLES = """
CREATE TABLE customers (user_id text, email text, name text, plan text);
CREATE TABLE orders (order_id text, user_id text, completed_at timestamptz, amount numeric(10, 2));
"""
CONFIG = """
[store]
url = "sqlite:///state.db"
[sources.warehouse]
type = "sql"
url = "${WAREHOUSE_URL}"
timeout = "30s"
freshness = { query = "SELECT max(completed_at) FROM orders", max_age = "30d" }
[destinations.calls]
type = "ndjson"
path = "calls.ndjson"
[[audiences]]
name = "Order Completed Last 30days"
source = "warehouse"
destinations = ["calls"]
query = '''
SELECT DISTINCT user_id, email
FROM orders JOIN customers USING (user_id)
WHERE completed_at <= :now AND completed_at > :now - INTERVAL '30 days' AND plan NOT LIKE '%@%'
'''
[[audiences]]
name = "VIPs 2026"
source = "warehouse"
destinations = ["calls"]
query = '''
SELECT user_id, email, plan
FROM orders JOIN customers USING (user_id)
WHERE completed_at >= '2026-01-01' AND completed_at <= :now
GROUP BY user_id, email, plan
HAVING sum(amount) >= 200
'''
"""


@pytest.fixture
def program(tmp_path: Path, postgres_url: str) -> Program:
    parts = make_url(postgres_url)
    native = f"host={parts.query['host']} user={parts.username} dbname={parts.database}"
    with psycopg.connect(native) as connection:
        connection.execute(TABLES)
        for table in ("customers", "orders"):
            into = f"COPY {table} FROM STDIN (FORMAT csv, HEADER match)"
            with connection.cursor() as cursor, cursor.copy(into) as copy:
                copy.write((SHOP / f"{table}.csv").read_text())
    url = parts.set(password=PASSWORD).render_as_string(hide_password=False)
    (tmp_path / "config.toml").write_text(CONFIG)
    return Program(folder=tmp_path, variables={"WAREHOUSE_URL": url})


def run(program: Program, *arguments: str, code: int = 0) -> Done:
    done = program.run(*arguments)
    assert done.code == code, done
    left = b"".join(program.files().values()).decode(errors="replace")
    for form in FORMS:
        assert form not in done.out + done.err + left
    return done


def test_the_shop_in_postgresql_is_the_shop_in_files(program: Program, tmp_path: Path) -> None:
    """The same members in the same types, so the same plan ids."""
    assert "stale: " in run(program, "check", code=1).out  # its last order was long ago
    day, next_day = ("--now", "2026-01-31"), ("--now", "2026-02-01")
    assert plans(run(program, "diff", *day, "--json")) == plans_of_the_files(tmp_path)
    assert "181 accepted" in run(program, "sync", *day).out
    assert "+5 −4" in run(program, "diff", *next_day).out
    second = run(program, "sync", *next_day, "--json").json()["deliveries"]
    assert {d["audience"]: d["accepted"] for d in second} == {
        "order_completed_last_30days": 9,
        "vips_2026": 1,
    }
    assert len(program.calls()) == 181 + 25 + 9 + 1


def plans_of_the_files(folder: Path) -> list[str]:
    there = folder / "files"
    there.mkdir()
    files = Program(folder=there)
    assert files.run("init", "--example").code == 0
    return plans(files.run("diff", "order*", "vips*", "--now", "2026-01-31", "--json"))


def plans(diff: Done) -> list[str]:
    return [audience["plan"] for audience in diff.json()["audiences"]]


def test_check_names_the_columns_of_a_query(program: Program) -> None:
    path = program.folder / "config.toml"
    path.write_text(re.sub("(?m)^freshness = .*$", "", path.read_text()))
    found = {c["name"]: c for c in check(program)}
    assert found["vips_2026"]["text"].startswith("user_id, email, plan   new key")


def test_check_offline_reaches_no_database(program: Program) -> None:
    program.variables["WAREHOUSE_URL"] = "postgresql://reader@nowhere.invalid/shop"
    assert "not read, as its source is a database" in run(program, "check", "--offline").out
    failed = run(program, "check", code=1).out
    assert "source warehouse: the database cannot be reached" in failed
    assert "nowhere" not in failed


def check(program: Program) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run(program, "check", "--json").json()["checks"]
    return found


def edit(program: Program, old: str, new: str) -> None:
    path = program.folder / "config.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


BROKEN = {
    "a missing column": (
        "SELECT user_id, email, plan",
        "SELECT user_id, emial, plan",
        65,
        "refused",
    ),
    "a value": ("sum(amount) >= 200", "sum(email::int) >= 200", 65, "refused"),
    "too slow": ("sum(amount) >= 200", "pg_sleep(99) IS NOT NULL", 1, "failed"),
    "stale": ('max_age = "30d"', 'max_age = "1h"', 1, "failed"),
}


@pytest.mark.parametrize(("old", "new", "code", "outcome"), BROKEN.values(), ids=BROKEN)
def test_a_broken_source_removes_nobody(
    program: Program, old: str, new: str, code: int, outcome: str
) -> None:
    run(program, "sync", "--now", "2026-01-31")
    told = program.calls()
    edit(program, old, new)
    if "pg_sleep" in new:
        edit(program, 'timeout = "30s"', 'timeout = "5s"')
    # Past the last order, so that the shop would be stale, and many would leave.
    done = run(program, "sync", "vips*", "--now", "2026-02-20", "--json", code=code)
    (captured,) = done.json()["captures"]
    assert captured["outcome"] == outcome
    assert "source warehouse: " in json.dumps(captured)
    assert program.calls() == told
    assert program.stored("SELECT max(seq) FROM snapshot") == [(1,)]
