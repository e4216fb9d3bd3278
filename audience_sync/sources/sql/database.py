"""A database for the length of one read: connected, in UTC, in a transaction that only reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from audience_sync.errors import SourceRefused
from audience_sync.sources.sql import columns, mysql
from audience_sync.sources.sql.dialects import DIALECTS, OTHER, Dialect
from audience_sync.sources.sql.faults import explaining
from audience_sync.sources.sql.request import Request
from audience_sync.sources.sql.statement import Statement, bind, one_select

FETCH_ROWS = 4096
"""Rows of Python objects at once: more do not stay in the processor's cache."""

ARROW_ROWS = 65_536
LOCK_WAIT = 30
"""Seconds to wait for a writer of a SQLite file."""

Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True, kw_only=True, slots=True)
class Database:
    """An open transaction. ``connection`` is the driver's own."""

    engine: Engine
    dialect: Dialect
    connection: Any

    def rows(self, query: str, cycle_time: datetime) -> tuple[pa.Schema, Batches]:
        """The columns of ``query``, and its rows as they stream; read one query to its end before
        the next.

        Raises:
            SourceRefused, SourceFailed: also from the iteration.
        """
        statement = self._statement(query, cycle_time)
        read = READERS.get(self.engine.dialect.name, _fetched)
        with self._explaining():
            schema, batches = read(self, statement)
        return schema, self._explained(batches)

    def _statement(self, query: str, cycle_time: datetime) -> Statement:
        backslashes = self.dialect.backslashes
        return bind(
            one_select(query, backslashes=backslashes),
            self.dialect.now(cycle_time),
            paramstyle=self.engine.dialect.paramstyle,
            backslashes=backslashes,
        )

    def _explained(self, batches: Batches) -> Batches:
        while True:
            with self._explaining():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _explaining(self) -> Any:
        return explaining(self.engine.dialect.dbapi)


@contextmanager
def opened(request: Request) -> Iterator[Database]:
    """The database of ``request``. After an error it is left as it is: the process ends.

    Raises:
        SourceRefused: nobody is let in, or there is no such driver, database or file.
        SourceFailed: it cannot be reached.
    """
    with explaining(None, connecting=True):
        engine = _engine(request)
    with explaining(engine.dialect.dbapi, connecting=True):
        raw = engine.raw_connection()
    with explaining(engine.dialect.dbapi):
        dialect = DIALECTS.get(_name(engine), OTHER)
        for sql in dialect.session(max(1, round(request.timeout.total_seconds()))):
            with closing(raw.cursor()) as cursor:
                cursor.execute(sql)
    yield Database(engine=engine, dialect=dialect, connection=raw.driver_connection)
    raw.close()


def _name(engine: Engine) -> str:
    is_mariadb = getattr(engine.dialect, "is_mariadb", False)
    return "mariadb" if is_mariadb else engine.dialect.name


def _engine(request: Request) -> Engine:
    url, arguments = make_url(request.url), dict(request.connect_args)
    backend = url.get_backend_name()
    if backend in ("sqlite", "duckdb"):
        _check_file(url)
    if backend == "sqlite":
        # Without transactions of Python's own, which are not for a SELECT.
        arguments |= {"isolation_level": None, "timeout": LOCK_WAIT}
        url = url.set(database=f"file:{quote(str(url.database))}")
        url = url.update_query_dict({"mode": "ro", "uri": "true"})
    if backend == "duckdb":
        arguments["read_only"] = True
    if backend == "postgresql":
        arguments["autocommit"] = False
    return create_engine(url, connect_args=arguments, poolclass=NullPool, hide_parameters=True)


def _check_file(url: URL) -> None:
    """A driver would make a file that is not there, and its audience would be nobody."""
    path = url.database or ""
    if not os.path.isfile(path):
        raise SourceRefused(
            f"there is no file {os.path.basename(path)}",
            hint="check url of the source; a relative path is relative to the configuration",
        )


def _of_postgresql(database: Database, statement: Statement) -> tuple[pa.Schema, Batches]:
    from audience_sync.sources.sql import postgresql

    return postgresql.record_batches(database.connection, statement)


def _of_duckdb(database: Database, statement: Statement) -> tuple[pa.Schema, Batches]:
    """DuckDB makes Arrow itself."""
    parameters = list(statement.parameters or ()) or None
    relation = database.connection.sql(statement.text, params=parameters)
    reader = relation.to_arrow_reader(ARROW_ROWS)
    return reader.schema, iter(reader)


def _of_mysql(database: Database, statement: Statement) -> tuple[pa.Schema, Batches]:
    """Its drivers take the whole result at once, unless asked for a cursor that streams."""
    dbapi: Any = database.engine.dialect.dbapi
    cursor = database.connection.cursor(dbapi.cursors.SSCursor)
    _execute(cursor, statement)
    described = list(cursor.description or ())
    kinds = {column[0]: mysql.arrow_type(column) for column in described}
    return columns.record_batches(list(kinds), _chunks(cursor), kinds.__getitem__)


def _fetched(database: Database, statement: Statement) -> tuple[pa.Schema, Batches]:
    """Any driver: rows as Python values."""
    cursor = database.connection.cursor()
    _execute(cursor, statement)
    found = [column[0] for column in cursor.description or ()]
    # Snowflake and Oracle write every name that is not quoted in capitals; others as it stands.
    fold = getattr(database.engine.dialect, "requires_name_normalize", False)
    names = [name.lower() if fold and name.isupper() else name for name in found]
    type_of = partial(
        _type_of_first_value, database, statement, dict(zip(names, found, strict=True))
    )
    return columns.record_batches(names, _chunks(cursor), type_of)


def _chunks(cursor: Any) -> Iterator[columns.Rows]:
    while rows := cursor.fetchmany(FETCH_ROWS):
        yield rows


def _type_of_first_value(
    database: Database, statement: Statement, found: Mapping[str, str], name: str
) -> pa.DataType | None:
    """In the same transaction, so of the same data."""
    column = database.engine.dialect.identifier_preparer.quote_identifier(found[name])
    text = f"SELECT {column} FROM ({statement.text}\n) q WHERE {column} IS NOT NULL LIMIT 1"
    with closing(database.connection.cursor()) as cursor:
        _execute(cursor, Statement(text=text, parameters=statement.parameters))
        row = cursor.fetchone()
    return columns.arrow_type(name, [row[0]]) if row else None


def _execute(cursor: Any, statement: Statement) -> None:
    if statement.parameters is None:
        cursor.execute(statement.text)
    else:
        cursor.execute(statement.text, statement.parameters)


READERS: dict[str, Callable[[Database, Statement], tuple[pa.Schema, Batches]]] = {
    "postgresql": _of_postgresql,
    "duckdb": _of_duckdb,
    "mysql": _of_mysql,
    "mariadb": _of_mysql,
}
