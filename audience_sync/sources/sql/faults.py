"""What databases and their drivers say when a read fails, in words without anybody's data.

A driver's text can hold values of rows, and of the connection. It is passed on only where it is
known to repeat nothing but the query's own words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import pyarrow as pa
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from audience_sync.errors import SourceFailed, SourceRefused
from audience_sync.sources.sql.fault_codes import (
    BUSY,
    CUT,
    HINTS,
    MYSQL,
    MYSQL_OF_THE_QUERY,
    NO_DATABASE,
    NO_ENTRY,
    POSTGRESQL,
    REFUSALS,
    SQLITE,
    SQLITE_OF_THE_QUERY,
    UNREACHED,
)
from audience_sync.sources.sql.statement import ONE_SELECT

LONGEST = 300
"""Characters of the database's own words about the query."""

OF_SETTINGS = (ArgumentError, TypeError, ValueError, AttributeError)
"""What SQLAlchemy and drivers raise for arguments that they do not know."""


@contextmanager
def explaining(dbapi: Any, *, connecting: bool = False) -> Iterator[None]:
    """Turn what a driver raises into what a person can use.

    Args:
        dbapi: the driver's module, with the classes of PEP 249.
        connecting: there is no connection yet, so none was cut.

    Raises:
        SourceRefused: the query or the data cannot be used, or nobody is let in.
        SourceFailed: the read did not finish.
    """
    try:
        yield
    except SourceFailed:
        raise
    except NoSuchModuleError:
        raise SourceRefused("SQLAlchemy has no dialect for the url") from None
    except ImportError as error:
        raise SourceRefused(f"the driver cannot be loaded ({type(error).__name__})") from None
    except Exception as error:
        found = explained(error, dbapi)
        raise (_while_connecting(error, found) if connecting else found) from None


def _while_connecting(error: Exception, found: SourceFailed) -> SourceFailed:
    if str(found) == CUT:
        return said(UNREACHED)
    if isinstance(error, OF_SETTINGS) or str(found).startswith("query: "):
        return SourceRefused(
            f"the driver cannot use the source's settings ({type(error).__name__})",
            hint=HINTS[NO_ENTRY],
        )
    return found


def explained(error: Exception, dbapi: Any) -> SourceFailed:
    """What to raise for an error of a driver, SQLAlchemy, Arrow or Python."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig else error
    family = type(original).__module__.partition(".")[0].lstrip("_")
    known = FAMILIES.get(family)
    found = known(original) if known else None
    return found or _by_class(original, dbapi)


def said(words: str) -> SourceFailed:
    """One of the sentences above, as the error that it is."""
    if words == ONE_SELECT:
        return SourceRefused(f"query: {words}")
    kind = SourceRefused if words in REFUSALS else SourceFailed
    return kind(words, hint=HINTS.get(words))


def of_the_query(words: str) -> SourceRefused:
    """The database's first line about the query, which repeats the author's own words."""
    return SourceRefused(f"query: {' '.join(words.split())[:LONGEST]}")


def of_a_value(kind: str) -> SourceRefused:
    return SourceRefused(
        f"query: a value cannot be used as the query does ({kind})",
        hint="repair the data, or change the query",
    )


def _by_class(error: Exception, dbapi: Any) -> SourceFailed:
    """By the classes of PEP 249; their texts are not known, so they are not told."""
    name, hint = type(error).__name__, "run the query in the database's own client to see more"
    code = getattr(error, "sqlstate", None) or getattr(error, "errno", None)
    shown = f"{name} {code}" if isinstance(code, int | str) else name
    if isinstance(error, UnicodeError):
        return of_a_value("text in another encoding than UTF-8")
    if isinstance(error, pa.ArrowException):
        return of_a_value(name)
    for kind in ("ProgrammingError", "NotSupportedError", "DataError", "IntegrityError"):
        if dbapi is not None and isinstance(error, getattr(dbapi, kind, ())):
            return SourceRefused(f"query: the database refuses it ({shown})", hint=hint)
    return SourceFailed(f"the database or its driver failed ({shown})", hint=hint)


def _of_psycopg(error: Any) -> SourceFailed | None:
    state = str(getattr(error, "sqlstate", None) or "")
    primary = getattr(getattr(error, "diag", None), "message_primary", None) or ""
    if not state:
        return _of_a_connection(error)
    if "multiple commands" in primary or state in ("25001", "25006"):
        return said(ONE_SELECT)
    for start, words in POSTGRESQL.items():
        if state.startswith(start):
            return said(words)
    if state.startswith("22"):
        return of_a_value(re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__).lower())
    if state.startswith(("42", "0A")):
        return of_the_query(primary)
    return SourceFailed(f"the database failed ({type(error).__name__})", hint=HINTS[BUSY])


def _of_a_connection(error: Any) -> SourceFailed | None:
    """The driver's own texts, which name user and host. Those of a server may be translated."""
    text = str(error)
    if re.search(r'password|(role|user) "[^"]*" does not exist|no pg_hba.conf entry', text):
        return said(NO_ENTRY)
    if re.search(r'database "[^"]*" does not exist', text):
        return said(NO_DATABASE)
    return (
        said(CUT) if "OperationalError" in {kind.__name__ for kind in type(error).mro()} else None
    )


def _of_pymysql(error: Any) -> SourceFailed | None:
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    if number in MYSQL:
        return said(MYSQL[number])
    if number in MYSQL_OF_THE_QUERY:
        return of_the_query(str(error.args[-1]))
    if number in (1292, 1365, 1366, 1690, 1367):
        return of_a_value(f"MySQL error {number}")
    return None


def _of_sqlite(error: Any) -> SourceFailed | None:
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    text = str(error)
    if code in SQLITE:
        return said(SQLITE[code])
    if code in (11, 26):
        return SourceRefused("the file is damaged, or no SQLite database")
    if SQLITE_OF_THE_QUERY.match(text):
        return of_the_query(text)
    if "one statement at a time" in text:
        return said(ONE_SELECT)
    if "UTF-8" in text:
        return of_a_value("text in another encoding than UTF-8")
    if code == 1 or type(error).__name__ == "ProgrammingError":
        return SourceRefused("query: SQLite refuses it", hint="run it in sqlite3 to see why")
    return None


def _of_duckdb(error: Any) -> SourceFailed | None:
    name, text = type(error).__name__, str(error)
    if name in ("BinderException", "CatalogException", "ParserException", "SyntaxException"):
        first = text.partition("\n")[0].partition("Error: ")[2]
        return of_the_query(first)
    if name in ("ConversionException", "OutOfRangeException", "InvalidInputException"):
        return SourceRefused("query: DuckDB refuses it, or a value", hint="run it in DuckDB")
    if name == "IOException":
        return said(UNREACHED)
    return None


FAMILIES = MappingProxyType(
    {
        "psycopg": _of_psycopg,
        "psycopg_binary": _of_psycopg,
        "pymysql": _of_pymysql,
        "sqlite3": _of_sqlite,
        "duckdb": _of_duckdb,
    }
)
"""By the first part of the module in which the error's class is defined."""
