"""Bring the store to this version's schema, or say why that cannot be done (P22)."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, inspect, text

from audience_sync.errors import StoreFailed, StoreTooNew
from audience_sync.store.engine import Database, limit

HEAD = "0004"
"""The newest migration; kept here so that a plain start need not import Alembic."""

MIGRATION_LOCK = 7_326_115_408
"""Key of the PostgreSQL advisory lock; any number that nobody else uses."""


def version(database: Database) -> str | None:
    """The schema version of the store; ``None`` when there is no store yet."""
    path = database.path
    if path is not None and not is_there(path):
        return None
    with database.read() as connection:
        return _version(connection)


def check_readable(found: str | None) -> None:
    """Raises StoreTooNew, or StoreFailed for a store that must be upgraded first."""
    if found is None or found == HEAD:
        return
    if found > HEAD:
        raise StoreTooNew(
            f"the store has schema {found}, this version knows {HEAD}",
            hint="a newer audience-sync wrote it: upgrade this one",
        )
    raise StoreFailed(
        f"the store has schema {found}, this version needs {HEAD}",
        hint="audience-sync db upgrade",
    )


def upgrade(database: Database) -> Literal["made", "migrated"] | None:
    """Make or migrate the store in one transaction; what was done.

    Raises:
        StoreTooNew: a newer version wrote it.
    """
    if not _is_older(version(database)):
        return None
    _make_private(database.path)
    with database.write() as connection:
        limit(connection, "lock_timeout", 0)
        _wait_for_other_migrations(connection)
        # Another process, of any version, may have migrated since we looked.
        found = _version(connection)
        if not _is_older(found):
            return None
        _run(connection)
    return "migrated" if found else "made"


def is_there(path: Path) -> bool:
    """A file that may not be looked at is not a store that is yet to be made."""
    try:
        return path.exists()
    except OSError as error:
        raise StoreFailed(
            f"the store failed: {error.strerror}",
            hint="check the folder and the permissions of [store] url",
        ) from None


def _make_private(path: Path | None) -> None:
    """SQLite makes a readable file, and ours holds user ids; its other files follow this one.

    Made by root in the folder of another user, it is that user's: or the daemon could not open
    what root's first `sync` has made. SQLite does the same for its other files.
    """
    if path is not None and not is_there(path):
        with suppress(OSError):  # SQLite will say what is wrong
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            try:
                if os.geteuid() == 0:
                    folder = path.parent.stat()
                    os.fchown(file, folder.st_uid, folder.st_gid)
            finally:
                os.close(file)


def _is_older(found: str | None) -> bool:
    """Raises StoreTooNew for a store of a newer version."""
    if found is not None and found >= HEAD:
        check_readable(found)
        return False
    return True


def _run(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(scripts()))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def scripts() -> Path:
    """The migrations: inside an installed wheel, or at the top of a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _wait_for_other_migrations(connection: Connection) -> None:
    # SQLite's BEGIN IMMEDIATE lets one writer in already.
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
