"""SqlSource: what databases do to a read, and what becomes of their types.

The server is real, and so are its deaths. What every source must do: see ``test_sources.py``.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pyarrow as pa
import pytest
from psycopg import sql

from audience_sync.errors import SourceFailed, SourceRefused
from audience_sync.sources.freshness import Freshness
from tests.contract.test_sources import (
    NOW,
    children_of_this,
    failure,
    native,
    rows,
    sql_source,
)

MANY = "SELECT i AS user_id FROM generate_series(1, 20000000) i"
"""More than fits in any buffer on the way."""


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(native(postgres_url), autocommit=True) as connection:
        yield connection


@pytest.fixture
def table(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "shop.db", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (user_id, v)")
        yield connection


def of_file(folder: Path, **more: Any) -> Any:
    return sql_source(f"sqlite:///{folder / 'shop.db'}", **more)


# --- a read that is cut ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("pg_terminate_backend", "the connection was cut|going down"),
        ("pg_cancel_backend", "took too long or was cancelled"),
    ],
)
def test_a_server_that_ends_a_read_is_no_end_of_the_rows(
    postgres_url: str, postgres: psycopg.Connection[Any], order: str, words: str
) -> None:
    with sql_source(postgres_url).read(MANY, NOW) as reader:
        reader.read_next_batch()
        ended = postgres.execute(
            f"SELECT {order}(pid) FROM pg_stat_activity WHERE application_name = 'audience-sync'"
        ).fetchall()
        assert ended == [(True,)]
        with pytest.raises(SourceFailed, match=words) as caught:
            reader.read_all()
    assert not isinstance(caught.value, SourceRefused)


def test_a_process_that_is_killed_is_no_end_of_the_rows(postgres_url: str) -> None:
    before = children_of_this()
    with sql_source(postgres_url).read(MANY, NOW) as reader:
        reader.read_next_batch()
        (pid,) = children_of_this() - before
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(SourceFailed, match="ended by signal 9 before the last row"):
            reader.read_all()


def test_the_process_ends_with_the_program(postgres_url: str) -> None:
    """Also when the program is killed while the database is thinking."""
    program = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from tests.contract.test_sources import *\n"
            "with sql_source(sys.argv[1]).read('SELECT pg_sleep(60)::text', NOW): pass",
            postgres_url,
        ],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        reading = _until_it_reads(psutil.Process(program.pid))
        secret = postgres_url.partition("?")[2]
        assert secret not in " ".join(reading.cmdline())
    finally:
        program.kill()
        program.wait()
    gone, alive = psutil.wait_procs([reading], timeout=30)
    assert (len(gone), alive) == (1, [])


def _until_it_reads(program: psutil.Process) -> psutil.Process:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for child in program.children():
            if child.status() == psutil.STATUS_SLEEPING and child.net_connections(kind="unix"):
                return child
        time.sleep(0.05)
    raise AssertionError("nothing was read")


@pytest.mark.parametrize("scheme", ["postgresql", "mysql+pymysql"])
def test_a_server_that_never_answers_is_left_in_time(scheme: str) -> None:
    before = children_of_this()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"{scheme}://user:p%40ss@127.0.0.1:{server.getsockname()[1]}/db"
        source = sql_source(url, timeout=timedelta(seconds=2))
        start = time.monotonic()
        error = failure(source, "SELECT 1 AS user_id")
    assert "was not read within 2 s (timeout)" in str(error)
    assert not isinstance(error, SourceRefused)
    assert time.monotonic() - start < 15
    assert children_of_this() <= before


def test_a_query_that_takes_too_long_is_ended_at_both_ends(
    postgres_url: str, postgres: psycopg.Connection[Any]
) -> None:
    source = sql_source(postgres_url, timeout=timedelta(seconds=3))
    error = str(failure(source, "SELECT pg_sleep(60)::text AS user_id"))
    assert "within 3 s" in error or "took too long" in error, "whichever end is first"
    working = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'audience-sync'"
    end = time.monotonic() + 30
    while postgres.execute(working).fetchone() != (0,):
        assert time.monotonic() < end, "the server goes on"
        time.sleep(0.1)


def test_rows_that_come_too_slowly_are_not_waited_for(postgres_url: str) -> None:
    slow = "SELECT pg_sleep(0.001)::text AS user_id FROM generate_series(1, 1000000)"
    error = failure(sql_source(postgres_url, timeout=timedelta(seconds=4)), slow)
    assert "within 4 s" in str(error) or "took too long" in str(error), "whichever end is first"


def test_a_signal_is_for_the_program_and_not_for_the_process_that_reads(postgres_url: str) -> None:
    """systemd sends it to every process of a unit, and the terminal to every one in front."""
    before = children_of_this()
    query = "SELECT i AS user_id FROM generate_series(1, 500000) i"
    with sql_source(postgres_url).read(query, NOW) as reader:
        reader.read_next_batch()
        (pid,) = children_of_this() - before
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
        assert reader.read_all().num_rows > 400_000


def test_modules_in_the_working_directory_are_not_taken_for_ours(
    tmp_path: Path, table: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.execute("INSERT INTO t VALUES ('u1', 1)")
    for name in ("json", "sqlalchemy", "sqlite3"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    assert rows(of_file(tmp_path), "SELECT * FROM t") == [("u1", 1)]


# --- who is let in -----------------------------------------------------------------------------


@pytest.fixture
def locked_out(postgres: psycopg.Connection[Any]) -> Iterator[str]:
    """A user who needs a password, unlike the others of the server."""
    ((name,),) = postgres.execute("SHOW hba_file").fetchall()
    file, user = Path(name), f"clerk_{os.getpid()}"
    before = file.read_text()
    postgres.execute(sql.SQL("CREATE USER {} PASSWORD 'right%'").format(sql.Identifier(user)))
    file.write_text(f"local all {user} scram-sha-256\n{before}")
    postgres.execute("SELECT pg_reload_conf()")
    with suppress(psycopg.OperationalError):
        while True:  # the server reads its file a moment later
            psycopg.connect(postgres.info.dsn, user=user, password="wrong").close()
    yield user
    file.write_text(before)
    postgres.execute("SELECT pg_reload_conf()")
    postgres.execute(sql.SQL("DROP OWNED BY {0}; DROP USER {0}").format(sql.Identifier(user)))


def test_a_wrong_password_is_refused(
    postgres_url: str, postgres: psycopg.Connection[Any], locked_out: str
) -> None:
    postgres.execute("CREATE TABLE orders AS SELECT 'u1' AS user_id")
    as_user = postgres_url.replace("postgres@", f"{locked_out}:PASSWORD@", 1)
    query = "SELECT user_id FROM orders"
    for password in ("wrong%25", "right"):
        error = failure(sql_source(as_user.replace("PASSWORD", password)), query)
        assert isinstance(error, SourceRefused)
        assert str(error) == "source shop: the database refuses the user or the password"
    source = sql_source(as_user.replace("PASSWORD", "right%25"))
    error = failure(source, query)
    assert isinstance(error, SourceRefused)
    assert error.hint == "grant SELECT to the user of the source"
    postgres.execute(sql.SQL("GRANT SELECT ON orders TO {}").format(sql.Identifier(locked_out)))
    assert rows(source, query) == [("u1",)]


UNREACHABLE = {
    "host": "postgresql://user:p4ssw0rd@nowhere.invalid/db",
    "port": "postgresql://user:p4ssw0rd@127.0.0.1:1/db",
    "mysql host": "mysql+pymysql://user:p4ssw0rd@nowhere.invalid/db",
    "mysql port": "mysql+pymysql://user:p4ssw0rd@127.0.0.1:1/db",
}


@pytest.mark.parametrize("url", UNREACHABLE.values(), ids=UNREACHABLE)
def test_what_cannot_be_reached_fails_without_its_address(url: str) -> None:
    error = failure(sql_source(url), "SELECT 1 AS user_id")
    assert str(error) == "source shop: the database cannot be reached"
    assert not isinstance(error, SourceRefused)


def test_a_database_that_is_not_there_is_refused(postgres_url: str) -> None:
    error = failure(sql_source(postgres_url.replace("/test_", "/no_test_")), "SELECT 1 AS user_id")
    assert isinstance(error, SourceRefused)
    assert str(error) == "source shop: there is no such database"


def test_settings_that_a_driver_does_not_know_are_refused(postgres_url: str) -> None:
    source = sql_source(postgres_url, connect_args={"keyfile": "p4ssw0rd"})
    error = failure(source, "SELECT 1 AS user_id")
    assert isinstance(error, SourceRefused)
    assert "p4ssw0rd" not in str(error)
    assert error.hint == "check url and connect_args of the source"


# --- the session -------------------------------------------------------------------------------

WRITES = {
    "in a common table": "WITH x AS (INSERT INTO t VALUES (1) RETURNING a) SELECT a FROM x",
    "by a function": "SELECT nextval('numbers') AS user_id",
    "into a table": "SELECT 1 AS a INTO u",
    "locks": "SELECT a AS user_id FROM t FOR UPDATE",
    "out of the transaction": "SELECT set_config('transaction_read_only', 'off', false), "
    "nextval('numbers')",
}


@pytest.mark.parametrize("query", WRITES.values(), ids=WRITES)
def test_postgresql_does_not_write(
    postgres_url: str, postgres: psycopg.Connection[Any], query: str
) -> None:
    """Not even when the driver is asked to commit by itself."""
    postgres.execute("CREATE TABLE t (a int); CREATE SEQUENCE numbers")
    for arguments in ({}, {"autocommit": True}):
        error = failure(sql_source(postgres_url, connect_args=arguments), query)
        assert isinstance(error, SourceRefused)
    assert postgres.execute("SELECT count(*) FROM t").fetchone() == (0,)
    assert postgres.execute("SELECT nextval('numbers')").fetchone() == (1,)


def test_sqlite_does_not_write(tmp_path: Path, table: sqlite3.Connection) -> None:
    query = "WITH x AS (SELECT 1) SELECT user_id FROM t"
    table.execute("INSERT INTO t VALUES ('u1', 1)")
    before = sorted(tmp_path.iterdir())
    assert rows(of_file(tmp_path), query) == [("u1",)]
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    for scheme in ("sqlite", "duckdb"):
        source = sql_source(f"{scheme}:///{tmp_path}/gone.db")
        error = failure(source, "SELECT 1 AS user_id")
        assert isinstance(error, SourceRefused)
        assert str(error) == "source shop: there is no file gone.db"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb"])
def test_another_file_is_refused(tmp_path: Path, scheme: str) -> None:
    (tmp_path / "shop.db").write_text("user_id,email\n" * 500)
    error = failure(sql_source(f"{scheme}:///{tmp_path}/shop.db"), "SELECT 1 AS user_id FROM t")
    assert not str(error).startswith("source shop: query")


def test_the_session_is_in_utc_whatever_the_user_s_zone_is(
    postgres_url: str, postgres: psycopg.Connection[Any]
) -> None:
    database = sql.Identifier(postgres.info.dbname)
    for setting in ("TimeZone TO 'America/Los_Angeles'", "DateStyle TO 'German'"):
        postgres.execute(sql.SQL("ALTER DATABASE {} SET " + setting).format(database))
    query = (
        "SELECT :now::date AS d, :now AS t, '2026-02-01 00:00'::timestamp <= :now AS le, "
        "date '2026-01-31' AS e"
    )
    assert rows(sql_source(postgres_url), query) == [
        (date(2026, 2, 1), NOW, True, date(2026, 1, 31))
    ]


def test_a_read_sees_one_moment(postgres_url: str, postgres: psycopg.Connection[Any]) -> None:
    """Freshness and rows are of the same data: what is deleted meanwhile is still there."""
    postgres.execute("CREATE TABLE t AS SELECT now() AS loaded_at FROM generate_series(1, 300000)")
    slow = "SELECT max(loaded_at) FROM t, pg_sleep(3)"
    source = sql_source(postgres_url, Freshness(max_age=timedelta(days=1), query=slow))
    delete = (
        "import sys, time, psycopg\n"
        "with psycopg.connect(sys.argv[1]) as c:\n"
        "    print('connected', flush=True)\n"
        "    while not c.execute(\"SELECT 1 FROM pg_stat_activity WHERE query LIKE '%sleep(3)%' "
        'AND pid <> pg_backend_pid()").fetchone(): c.rollback(); time.sleep(0.05)\n'
        "    c.execute('DELETE FROM t')"
    )
    command = [sys.executable, "-c", delete, native(postgres_url)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as deleting:
        assert deleting.stdout is not None
        assert deleting.stdout.readline(), "it looks"
        found = rows(source, "SELECT 'u' || row_number() OVER () AS user_id FROM t")
    assert deleting.returncode == 0
    assert len(found) == 300_000
    assert postgres.execute("SELECT count(*) FROM t").fetchone() == (0,)


# --- types -------------------------------------------------------------------------------------

POSTGRESQL = {
    "9223372036854775807": 2**63 - 1,
    "7::smallint": 7,
    "true": True,
    "0.1::float8": 0.1,
    "'NaN'::float8::text": "NaN",
    "12.50::numeric(10, 2)": 12.5,
    "sum(12.50)": 12.5,
    "123456789012345678901234567890::numeric(38, 0)": 123456789012345678901234567890,
    "'x'::varchar(5)": "x",
    "'x'::char(3)": "x  ",
    "date '2026-02-28'": date(2026, 2, 28),
    "time '10:30'": "10:30:00",
    "timestamp '2026-02-28 10:30:00.25'": datetime.fromisoformat("2026-02-28T10:30:00.250"),
    "timestamptz '2026-02-28 10:30+02'": datetime(2026, 2, 28, 8, 30, tzinfo=UTC),
    "'{\"a\": [1]}'::jsonb": '{"a": [1]}',
    "'a1b2c3d4-0000-4000-8000-000000000001'::uuid": "a1b2c3d4-0000-4000-8000-000000000001",
    "'sad'::mood": "sad",
    "interval '1 day'": "1 day",
    "'10.0.0.1'::inet": "10.0.0.1",
    "NULL": None,
    "NULL::int": None,
}


def test_types_of_postgresql(postgres_url: str, postgres: psycopg.Connection[Any]) -> None:
    postgres.execute("CREATE TYPE mood AS ENUM ('sad', 'glad')")
    columns = ", ".join(f"{text} AS c{number}" for number, text in enumerate(POSTGRESQL))
    (found,) = rows(sql_source(postgres_url), f"SELECT {columns}")
    assert dict(zip(POSTGRESQL, found, strict=True)) == POSTGRESQL


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ARRAY['a']", r"the column v is of type text\[\], which cannot travel"),
        ("ROW(1, 2)", "the column v is of type record, which cannot travel"),
        ("'{sad}'::mood[]", r"the column v is of type mood\[\], which cannot travel"),
        ("timestamptz 'infinity'", "the column v has a value that cannot travel as timestamp"),
        ("date '0044-03-15 BC'", "the column v has a value that cannot travel as date"),
    ],
)
def test_what_postgresql_has_and_nobody_else_is_refused(
    postgres_url: str, postgres: psycopg.Connection[Any], text: str, words: str
) -> None:
    postgres.execute("CREATE TYPE mood AS ENUM ('sad', 'glad')")
    with pytest.raises(SourceRefused, match=words):
        rows(sql_source(postgres_url), f"SELECT 'u1' AS user_id, {text} AS v")


def test_ids_of_postgresql_are_exact(postgres_url: str) -> None:
    big = "12345678901234567890123"
    assert rows(sql_source(postgres_url), f"SELECT sum({big}) AS user_id") == [(big,)]


def test_a_column_s_type_is_that_of_all_its_values(
    tmp_path: Path, table: sqlite3.Connection
) -> None:
    """SQLite does not say types, and here the first 50,000 rows do not either."""
    table.execute(
        "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 50001) "
        "INSERT INTO t SELECT 'u' || i, CASE i WHEN 50001 THEN 1.5 END FROM r"
    )
    with of_file(tmp_path).read("SELECT user_id, v, NULL AS n FROM t", NOW) as reader:
        assert reader.schema.types == [pa.string(), pa.float64(), pa.string()]
        assert reader.read_all().column("v").null_count == 50_000


MIXED = {
    "text after numbers": ("1", "'jane.doe'"),
    "numbers after text": ("'jane.doe'", "1"),
    "a fraction after whole numbers": ("1", "1.5"),
    "bytes after numbers": ("1", "x'ff'"),
}


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(("first", "last"), MIXED.values(), ids=MIXED)
def test_values_of_several_types_are_refused(
    tmp_path: Path, table: sqlite3.Connection, first: str, last: str, together: bool
) -> None:
    """Near each other, or so far that the type was settled long before."""
    table.execute(f"INSERT INTO t VALUES ('u0', {first})")
    if not together:
        table.execute(
            "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 20000) "
            f"INSERT INTO t SELECT 'u' || i, {first} FROM r"
        )
    table.execute(f"INSERT INTO t VALUES ('u', {last})")
    if together and last == "1.5":
        assert rows(of_file(tmp_path), "SELECT v FROM t") == [(1.0,), (1.5,)]
        return
    error = failure(of_file(tmp_path), "SELECT * FROM t")
    assert isinstance(error, SourceRefused)
    assert "the column v has" in str(error)


def test_text_that_is_no_utf8_is_refused(tmp_path: Path, table: sqlite3.Connection) -> None:
    table.execute("INSERT INTO t VALUES (CAST(x'6a616e652e646f65ff' AS TEXT), 1)")
    error = failure(of_file(tmp_path), "SELECT * FROM t")
    assert isinstance(error, SourceRefused)
    assert "another encoding than UTF-8" in str(error)


def test_what_the_engine_refuses_reaches_it(tmp_path: Path, table: sqlite3.Connection) -> None:
    table.execute("INSERT INTO t VALUES (CAST(x'610062' AS TEXT), 9e999), (NULL, ''), (' ', NULL)")
    found = rows(of_file(tmp_path), "SELECT user_id, CAST(v AS REAL) AS v FROM t")
    assert found == [("a\0b", float("inf")), (None, 0.0), (" ", None)]
