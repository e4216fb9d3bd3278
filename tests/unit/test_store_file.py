"""What a store's file and a missing driver look like to a user."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
from sqlalchemy import text

from audience_sync.errors import StoreFailed
from audience_sync.store import migrate
from audience_sync.store.engine import Database
from audience_sync.store.leases import Leases
from tests.fakes.nobody import as_nobody, open_folder


def test_nobody_else_can_read_the_store(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    database = Database(f"sqlite:///{path}")
    migrate.upgrade(database)
    assert path.stat().st_mode & 0o077 == 0
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_what_root_makes_belongs_to_the_owner_of_the_folder() -> None:
    """Root looks and gives orders beside a daemon that is another user; whoever comes first."""
    with open_folder() as folder:
        os.chown(folder, 65534, 65534)
        path = folder / "state.db"
        for user in (nullcontext, as_nobody, nullcontext, as_nobody):
            with user():
                database = Database(f"sqlite:///{path}")
                migrate.upgrade(database)
                Leases(database).acquire(f"capture:{user.__name__}{time.monotonic()}")
                assert {file.stat().st_uid for file in folder.iterdir()} == {65534}
                database.close()


def test_a_file_that_may_not_be_looked_at_is_not_a_missing_store() -> None:
    with open_folder() as folder:
        (folder / "closed").mkdir(mode=0o700)
        for name in ("closed/state.db", "x" * 300):
            database = Database(f"sqlite:///{folder / name}")
            with as_nobody(), pytest.raises(StoreFailed) as error:
                migrate.version(database)
            assert "the permissions of [store] url" in str(error.value.hint)


def test_a_new_file_that_another_process_begins_too_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.touch(mode=0o600)
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        ends = threading.Timer(0.2, other.execute, ["COMMIT"])
        ends.start()
        database = Database(f"sqlite:///{path}")
        migrate.upgrade(database)
        ends.join()
        assert migrate.version(database) == migrate.HEAD
        database.close()


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreFailed, match="needs the package psycopg") as error:
        Database("postgresql+psycopg://user@127.0.0.1/store")
    assert "postgres" in str(error.value.hint)


def test_a_server_that_is_not_there_is_named() -> None:
    database = Database("postgresql+psycopg://user:hunter22@127.0.0.1:1/store")
    with pytest.raises(StoreFailed, match="port 1 failed: Connection refused") as error:
        migrate.version(database)
    assert "hunter22" not in str(error.value)


@pytest.mark.parametrize("another", [False, True])
def test_a_file_that_is_removed_or_replaced_is_used_no_more(tmp_path: Path, another: bool) -> None:
    """SQLite would go on in the former one, and make one for a new connection."""
    path = tmp_path / "state.db"
    database = Database(f"sqlite:///{path}")
    migrate.upgrade(database)
    path.rename(tmp_path / "aside.db")
    if another:
        path.write_bytes((tmp_path / "aside.db").read_bytes())
    for transaction in (database.read, database.write):
        with pytest.raises(StoreFailed, match="removed or replaced"), transaction():
            pass
    database.close()
    with pytest.raises(StoreFailed, match="removed or replaced"), database.read():
        pass
    assert path.exists() == another
    (tmp_path / "aside.db").rename(path)
    with database.write() as connection:
        connection.execute(text("SELECT 1"))
    database.close()
