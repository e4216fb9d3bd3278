"""What drivers say, in words without data. What real servers say: ``tests/contract``."""

from __future__ import annotations

import sqlite3
from types import SimpleNamespace
from typing import Any

import pymysql
import pytest
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from audience_sync.errors import SourceFailed, SourceRefused
from audience_sync.sources.sql.faults import explaining

SECRET = "jane.doe"


def found(error: Exception, dbapi: Any = pymysql, *, connecting: bool = False) -> SourceFailed:
    with pytest.raises(SourceFailed) as caught, explaining(dbapi, connecting=connecting):
        raise error
    assert SECRET not in f"{caught.value} {caught.value.hint}"
    assert caught.value.__cause__ is None
    return caught.value


OF_MYSQL = [
    (1045, "the database refuses the user or the password", True),
    (1142, "the database's user may not read this", True),
    (1049, "there is no such database", True),
    (1969, "the database ended the query, as it took too long or was cancelled", False),
    (3024, "the database ended the query, as it took too long or was cancelled", False),
    (2013, "the connection was cut before the last row", False),
    (2003, "the database cannot be reached", False),
    (1213, "the database is busy or going down", False),
    (1792, "query: a query must be one SELECT that only reads", True),
    (1292, "query: a value cannot be used as the query does (MySQL error 1292)", True),
    (9999, "the database or its driver failed (OperationalError)", False),
]


@pytest.mark.parametrize(("number", "words", "refused"), OF_MYSQL)
def test_numbers_of_mysql(number: int, words: str, refused: bool) -> None:
    error = found(pymysql.err.OperationalError(number, f"… '{SECRET}' …"))
    assert (str(error), isinstance(error, SourceRefused)) == (words, refused)


def test_mysql_s_own_words_about_names_are_told() -> None:
    error = found(pymysql.err.OperationalError(1054, "Unknown column 'emial' in 'SELECT'"))
    assert str(error) == "query: Unknown column 'emial' in 'SELECT'"


def test_words_that_repeat_a_value_are_not() -> None:
    for number in (1292, 1690):
        found(pymysql.err.DataError(number, f"Incorrect value: '{SECRET}'"))


def test_while_connecting_nothing_was_cut_yet() -> None:
    error = found(pymysql.err.OperationalError(2013, "Lost connection"), connecting=True)
    assert str(error) == "the database cannot be reached"


class OtherError(Exception):
    sqlstate = "42000"


def test_a_driver_that_nobody_knows_is_told_by_its_class() -> None:
    dbapi = SimpleNamespace(ProgrammingError=OtherError)
    refused = found(OtherError(SECRET), dbapi)
    assert str(refused) == "query: the database refuses it (OtherError 42000)"
    assert isinstance(refused, SourceRefused)
    failed = found(OtherError(SECRET), SimpleNamespace())
    assert str(failed) == "the database or its driver failed (OtherError 42000)"
    assert not isinstance(failed, SourceRefused)


@pytest.mark.parametrize(
    "error",
    [
        ArgumentError(SECRET),
        TypeError(f"connect() got an unexpected keyword argument '{SECRET}'"),
        NoSuchModuleError(SECRET),
        ImportError(SECRET),
    ],
)
def test_settings_and_drivers_that_cannot_be_used_are_refused(error: Exception) -> None:
    assert isinstance(found(error, connecting=True), SourceRefused)


def test_what_sqlite_says_is_told_only_where_it_is_known() -> None:
    with sqlite3.connect(":memory:") as connection:
        for query, words in (
            ("SELECT a FROM t", "query: no such table: t"),
            (f"SELECT json('{SECRET}')", "query: SQLite refuses it"),
            (f"SELECT json_extract('{{}}', '{SECRET}')", "query: SQLite refuses it"),
        ):
            with pytest.raises(sqlite3.Error) as caught:
                connection.execute(query)
            assert str(found(caught.value, sqlite3)) == words
