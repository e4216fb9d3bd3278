"""What databases and their drivers say when a read fails, in words without anybody's data.

A driver's text can hold values of rows, and of the connection. It is passed on only where it is
known to repeat nothing but the query's own words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import pyarrow as pa
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError

from audience_sync.errors import SourceFailed, SourceRefused
from audience_sync.sources.sql.statement import ONE_SELECT

LONGEST = 300
"""Characters of the database's own words about the query."""

TIMED_OUT = "the database ended the query, as it took too long or was cancelled"
NO_ENTRY = "the database refuses the user or the password"
NO_RIGHT = "the database's user may not read this"
NO_DATABASE = "there is no such database"
CUT = "the connection was cut before the last row"
UNREACHED = "the database cannot be reached"
BUSY = "the database is busy or going down"

MYSQL: Mapping[int, str] = MappingProxyType(
    {
        **dict.fromkeys((1044, 1045, 1698), NO_ENTRY),
        **dict.fromkeys((1142, 1143, 1227, 1370), NO_RIGHT),
        1049: NO_DATABASE,
        **dict.fromkeys((1317, 1969, 3024, 1028), TIMED_OUT),
        **dict.fromkeys((2006, 2013, 2055), CUT),
        **dict.fromkeys((2002, 2003, 2005), UNREACHED),
        **dict.fromkeys((1040, 1053, 1205, 1213), BUSY),
        **dict.fromkeys((1792, 1290, 1295), ONE_SELECT),
    }
)
"""By error number; https://mariadb.com/kb/en/mariadb-error-code-reference/"""
MYSQL_OF_THE_QUERY = frozenset({1046, 1051, 1052, 1054, 1055, 1060, 1064, 1109, 1111, 1140, 1146})
MYSQL_OF_THE_QUERY |= {1222, 1241, 1242, 1247, 1248, 1305, 1630}
"""Errors whose text names tables, columns and the query's own words."""

SQLITE: Mapping[int, str] = MappingProxyType(
    {5: BUSY, 6: BUSY, 8: ONE_SELECT, 9: TIMED_OUT, 10: CUT, 14: UNREACHED, 23: NO_RIGHT}
)
"""By primary result code; https://www.sqlite.org/rescode.html"""
SQLITE_OF_THE_QUERY = re.compile(
    r"no such (table|column|function|collation)|ambiguous column|near \"|incomplete input|misuse of"
    r"|wrong number of arguments|a GROUP BY clause|no tables specified|unrecognized token"
    r"|\d+ values for|SELECTs to the left|sub-select returns"
)
REFUSALS = frozenset({ONE_SELECT, NO_ENTRY, NO_RIGHT, NO_DATABASE})
"""Nothing of these ends by itself."""
HINTS: Mapping[str, str] = MappingProxyType(
    {
        NO_ENTRY: "check url and connect_args of the source",
        NO_DATABASE: "check url of the source",
        NO_RIGHT: "grant SELECT to the user of the source",
        TIMED_OUT: "raise timeout, or make the query quicker; the next run tries again",
        UNREACHED: "check host, port and network; the next run tries again",
        BUSY: "the next run tries again",
        CUT: "the next run tries again",
    }
)


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
        if connecting and str(found) == CUT:
            found = said(UNREACHED)
        elif connecting and str(found).startswith("query: "):
            found = _of_settings(type(error).__name__)
        raise found from None


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


def _of_settings(shown: str) -> SourceRefused:
    return SourceRefused(
        f"the driver cannot use the source's settings ({shown})", hint=HINTS[NO_ENTRY]
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
    if isinstance(error, SQLAlchemyError | TypeError | ValueError | AttributeError):
        return _of_settings(shown)
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


POSTGRESQL: Mapping[str, str] = MappingProxyType(
    {
        "28": NO_ENTRY,
        "3D": NO_DATABASE,
        "42501": NO_RIGHT,
        "57014": TIMED_OUT,
        "57": BUSY,
        "53": BUSY,
        "40": BUSY,
        "55": BUSY,
        "08": CUT,
    }
)
"""By the beginning of SQLSTATE; https://www.postgresql.org/docs/current/errcodes-appendix.html"""


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
