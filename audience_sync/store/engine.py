"""Connections and transactions of the store, on SQLite and PostgreSQL."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from audience_sync.errors import LeaseLost, LeaseTaken, StoreFailed
from audience_sync.pipeline.ports.leases import Lease
from audience_sync.store import schema
from audience_sync.store.same_file import require_same_file

GONE = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""Of libpq, in seconds, the last in milliseconds: a PostgreSQL that vanishes without a word would
otherwise be waited for as long as the system likes, which is two hours. The URL may say otherwise.
"""

LOCK_WAIT = 30
"""Seconds to wait for another writer: of a SQLite file, or of a row in PostgreSQL."""

IDLE = 20
"""Seconds for which a transaction in PostgreSQL may do nothing before the server ends it. Else a
process that is frozen, or whose host is gone, would keep its locks for as long as it is."""


class Database:
    """The store's database. ``read`` and ``write`` are the only ways to a connection."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self._engine = _engine(url)
        if self.path is not None:
            require_same_file(self._engine, self.path)

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def path(self) -> Path | None:
        """The file of a SQLite store."""
        name = self.url.database
        return Path(name) if self.is_sqlite and name and name != ":memory:" else None

    def __str__(self) -> str:
        """As it may be shown: without user, password or host."""
        return str(self.path or f"the PostgreSQL database {self.url.database}")

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def read(self, *, of_one_moment: bool = False) -> Iterator[Connection]:
        """A short read transaction.

        Args:
            of_one_moment: it may be long, and sees nothing that is written meanwhile.

        Raises:
            StoreFailed: the store cannot be reached or read.
        """
        with self._translated(), self._engine.connect() as connection:
            if of_one_moment and not self.is_sqlite:  # SQLite always reads so
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                if of_one_moment:
                    limit(connection, "idle_in_transaction_session_timeout", 0)
                yield connection

    @contextmanager
    def write(self, lease: Lease | None = None, *others: Lease) -> Iterator[Connection]:
        """A write transaction, all or nothing.

        Args:
            lease: checked, and locked against takeover, before anything is written. ``None``
                only for what no lease protects: leases themselves, and an operator's orders.
            others: the same for an order that must not meet anybody at work.

        Raises:
            LeaseLost: another holder took over; nothing was written.
            StoreFailed: full, locked for too long, or not reachable; nothing was written.
        """
        with self._translated(), self._engine.connect() as plain:
            connection = plain.execution_options(writes=True)
            with connection.begin():
                for held in (lease, *others):
                    if held is not None:
                        _check(connection, held)
                yield connection

    def wipe(self) -> None:
        """Let nothing be left in the database's files of what was deleted before.

        A PostgreSQL server keeps its own files: what it may remove is marked as such for it.

        Raises:
            LeaseTaken: another process reads an older state for too long.
        """
        with self._translated():
            if self.is_sqlite:
                self._rewrite_file()
            else:
                with self._engine.connect() as plain:
                    connection = plain.execution_options(isolation_level="AUTOCOMMIT")
                    for table in schema.metadata.sorted_tables:
                        connection.execute(text(f'VACUUM "{table.name}"'))

    def _rewrite_file(self) -> None:
        """The file is written anew, and the log beside it, which has the former pages, is cut."""
        # Not through SQLAlchemy, which would begin a transaction.
        connection = self._engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute("VACUUM")
            busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            connection.close()
        if busy:
            raise LeaseTaken(
                "another process is reading the store: its files still hold what was removed",
                hint="run it again when that process has ended",
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise StoreFailed(f"the store failed: {_plain(error)}", hint=_hint(error)) from None


def _check(connection: Connection, lease: Lease) -> None:
    epoch = getattr(lease, "epoch", None)
    row = connection.execute(
        schema.lease.select().where(schema.lease.c.name == lease.name).with_for_update()
    ).one_or_none()
    if row is None or row.epoch != epoch:
        raise LeaseLost(f"another process took over {lease.name}; nothing more is written here")


def insert_missing(connection: Connection, table: Table, values: dict[str, Any]) -> None:
    """Insert a row unless there is one with its key.

    PostgreSQL waits for another transaction that is inserting the same one; SQLite has one writer.
    """
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    connection.execute(dialect.insert(table).values(values).on_conflict_do_nothing())


def limit(connection: Connection, what: str, seconds: float) -> None:
    """Another limit of PostgreSQL for this transaction; 0: none. SQLite has but ``LOCK_WAIT``."""
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql(f"SET LOCAL {what} = {round(seconds * 1000)}")


def _engine(url: str) -> Engine:
    # hide_parameters: they hold user ids and e-mails, and would be in error texts.
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        try:
            limits = {name: value for name, value in GONE.items() if name not in parsed.query}
            engine = create_engine(
                url, hide_parameters=True, pool_pre_ping=True, connect_args=limits
            )
            event.listen(engine, "connect", _postgresql_settings)
            return engine
        except ImportError:
            raise StoreFailed(
                "a store in PostgreSQL needs the package psycopg",
                hint="pip install 'audience-sync[postgres]'",
            ) from None
    in_memory = parsed.database in (None, "", ":memory:")
    options: dict[str, Any] = {"poolclass": StaticPool} if in_memory else {}
    engine = create_engine(
        url,
        hide_parameters=True,
        connect_args={"check_same_thread": False, "timeout": LOCK_WAIT},
        **options,
    )
    event.listen(engine, "connect", _sqlite_settings)
    event.listen(engine, "begin", _sqlite_begin)
    return engine


def _postgresql_settings(connection: Any, _record: object) -> None:
    connection.execute(f"SET lock_timeout = {round(LOCK_WAIT * 1000)}")
    connection.execute(f"SET idle_in_transaction_session_timeout = {round(IDLE * 1000)}")
    connection.commit()


def _sqlite_settings(connection: sqlite3.Connection, _record: object) -> None:
    # Python would open deferred transactions of its own, whose upgrade to a write fails at
    # once and ignores busy_timeout; so it opens none and _sqlite_begin does.
    connection.isolation_level = None
    _with_wal(connection)
    for pragma in (
        "synchronous = FULL",
        "foreign_keys = ON",
        f"busy_timeout = {LOCK_WAIT * 1000}",
        "journal_size_limit = 67108864",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _with_wal(connection: sqlite3.Connection) -> None:
    """SQLite does not wait where this meets another process that does the same to a new file;
    where it does wait it has waited for longer than we would go on."""
    until = time.monotonic() + LOCK_WAIT / 2
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > until:
                raise
        time.sleep(0.01)


def _sqlite_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _plain(error: Exception) -> str:
    """The database's own sentence, without statement, parameters or row values."""
    original = getattr(error, "orig", None) or error
    primary = getattr(getattr(original, "diag", None), "message_primary", None)
    # Class 22, data exceptions: PostgreSQL quotes the value itself.
    if primary and not str(getattr(original, "sqlstate", None)).startswith("22"):
        return str(primary)
    if isinstance(original, sqlite3.Error):
        return str(original)
    if isinstance(error, OperationalError) and not getattr(original, "sqlstate", None):
        # The driver's own words on the connection: host, port and socket, no password.
        return (str(original).splitlines() or [type(original).__name__])[0]
    return type(original).__name__


def _hint(error: Exception) -> str | None:
    text = str(getattr(error, "orig", error))
    if "full" in text:
        return "make room on the disk; the next run goes on where this one stopped"
    if "disk I/O" in text:
        return "the disk is failing, or its quota is used up; the next run goes on"
    if "locked" in text or "lock timeout" in text:
        return "another process holds the store; the next run goes on"
    if "malformed" in text:
        return "restore the store from a backup"
    if "not a database" in text:
        return "check [store] url, or restore the store from a backup"
    if "unable to open" in text or "readonly" in text:
        return "check the folder and the permissions of [store] url"
    return None
