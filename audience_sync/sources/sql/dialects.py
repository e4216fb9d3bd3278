"""What differs from database to database: the session, its limits, and how a time is bound.

Facts, with what was run here, are in docs/sources.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any


def aware(cycle_time: datetime) -> Any:
    return cycle_time.astimezone(UTC)


def naive(cycle_time: datetime) -> Any:
    """Where a time with a zone would be compared as text, or lose its zone."""
    return cycle_time.astimezone(UTC).replace(tzinfo=None)


def text(cycle_time: datetime) -> Any:
    """As SQLite's ``datetime()`` gives it: it has no type for times, and compares text."""
    return f"{cycle_time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """``session``: statements of a session that reads only, in UTC, for at most so many seconds.

    ``backslashes``: see ``query_text.OPENING``.
    """

    session: Callable[[int], Sequence[str]]
    now: Callable[[datetime], Any] = aware
    backslashes: bool = False


def _postgresql(seconds: int) -> Sequence[str]:
    """``SET LOCAL`` ends with the transaction, also behind a pooler."""
    return (
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
        f"SET LOCAL statement_timeout = {seconds * 1000}",
        "SET LOCAL application_name = 'audience-sync'",
        "SET LOCAL TimeZone = 'UTC'",
        "SET LOCAL DateStyle = 'ISO, YMD'",
        "SET LOCAL client_encoding = 'UTF8'",
    )


def _mysql(seconds: int) -> Sequence[str]:
    return (f"SET SESSION max_execution_time = {seconds * 1000}", *_of_mysql(seconds))


def _mariadb(seconds: int) -> Sequence[str]:
    return (f"SET SESSION max_statement_time = {seconds}", *_of_mysql(seconds))


def _of_mysql(seconds: int) -> Sequence[str]:
    """The server gives up a client that takes rows slowly after 60 s, unless told otherwise."""
    return (
        f"SET SESSION net_write_timeout = {seconds}",
        "SET SESSION time_zone = '+00:00'",
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    )


def _redshift(seconds: int) -> Sequence[str]:
    return ("SET timezone TO 'UTC'", f"SET statement_timeout TO {seconds * 1000}")


def _snowflake(seconds: int) -> Sequence[str]:
    return (
        "ALTER SESSION SET TIMEZONE = 'UTC'",
        f"ALTER SESSION SET STATEMENT_TIMEOUT_IN_SECONDS = {seconds}",
    )


DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        "postgresql": Dialect(session=_postgresql),
        "sqlite": Dialect(session=lambda _: ("PRAGMA query_only = ON", "BEGIN"), now=text),
        "duckdb": Dialect(session=lambda _: ("SET TimeZone = 'UTC'",)),
        "mysql": Dialect(session=_mysql, now=naive, backslashes=True),
        "mariadb": Dialect(session=_mariadb, now=naive, backslashes=True),
        # Written by their documentation; not run here.
        "redshift": Dialect(session=_redshift),
        "snowflake": Dialect(session=_snowflake, backslashes=True),
        "databricks": Dialect(session=lambda _: ("SET TIME ZONE 'UTC'",), backslashes=True),
        "bigquery": Dialect(session=lambda _: (), backslashes=True),
        "clickhousedb": Dialect(session=lambda _: (), backslashes=True),
    }
)
OTHER = Dialect(session=lambda _: ())
"""A database that is not listed; its rights and its own settings are what is left."""
