"""The schema on both databases: made whole or not at all, once, and never by an older version."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect
from sqlalchemy.dialects import postgresql

from audience_sync.errors import StoreFailed, StoreTooNew
from audience_sync.store import migrate, schema
from audience_sync.store.engine import Database
from tests.fakes.snapshot_log import column, execute, scalar

TOP = Path(__file__).parents[2]
TABLES = sorted([*schema.metadata.tables, "alembic_version"])


def other_process(url: str, *orders: str) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fakes.store_process", url, *orders],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


def tables(database: Database) -> list[str]:
    with database.read() as connection:
        return sorted(inspect(connection).get_table_names())


class TestSchema:
    def test_migrations_make_what_the_queries_expect(self, database: Database) -> None:
        with database.read() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, schema.metadata) == []

    def test_partial_indexes_are_the_same_too(self, store_url: str, database: Database) -> None:
        """Alembic does not compare their conditions."""
        made = _index_definitions(database)
        assert {"snapshot_seq", "span_open"} <= {name for name, _ in made}
        with database.write() as connection:
            for table in ("snapshot", "span"):
                for index in schema.metadata.tables[table].indexes:
                    index.drop(connection)
                    index.create(connection)
        assert _index_definitions(database) == made

    def test_a_store_of_all_migrations_has_the_version_we_know(self, database: Database) -> None:
        assert migrate.version(database) == migrate.HEAD
        heads = ScriptDirectory(str(migrate.scripts())).get_heads()
        assert heads == [migrate.HEAD]

    def test_sqlite_settings(self, sqlite_url: str) -> None:
        database = Database(sqlite_url)
        with database.read() as connection:
            settings = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
        database.close()
        assert settings == {
            "journal_mode": "wal",
            "synchronous": 2,
            "foreign_keys": 1,
            "busy_timeout": 30_000,
        }

    def test_foreign_keys_hold(self, database: Database) -> None:
        with pytest.raises(StoreFailed):
            execute(database, "INSERT INTO told VALUES (1, 1, 1)")

    def test_postgres_storage_and_order(self, emptied_postgres_url: str) -> None:
        database = Database(emptied_postgres_url)
        storage = "SELECT attstorage FROM pg_attribute WHERE attrelid = 'chunk'::regclass AND "
        assert scalar(database, storage + "attname = 'payload'") == "e"
        collated = column(
            database,
            "SELECT table_name || '.' || column_name FROM information_schema.columns "
            "WHERE collation_name = 'C' AND table_schema = 'public' ORDER BY 1",
        )
        fsync = scalar(database, "SHOW fsync"), scalar(database, "SHOW synchronous_commit")
        database.close()
        assert collated == [
            "chunk.first_user_id",
            "chunk.last_user_id",
            "contact.user_id",
            "rejection.user_id",
            "span.position",
        ]
        assert collated == _collated_in_schema()
        assert fsync == ("on", "on")


def _collated_in_schema() -> list[str]:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    columns = [c for table in schema.metadata.tables.values() for c in table.columns]
    return sorted(
        str(c) for c in columns if getattr(c.type.dialect_impl(dialect), "collation", None) == "C"
    )


def _index_definitions(database: Database) -> set[tuple[str, str]]:
    sql = (
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        if database.is_sqlite
        else "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    )
    with database.read() as connection:
        rows = connection.exec_driver_sql(sql).all()
    return {(name, " ".join(sql.split())) for name, sql in rows}


class TestUpgrade:
    def test_from_nothing_and_then_nothing_more(self, empty_url: str) -> None:
        database = Database(empty_url)
        assert migrate.version(database) is None
        assert migrate.upgrade(database)
        assert tables(database) == TABLES
        execute(database, "INSERT INTO destination (name) VALUES ('crisp')")
        assert not migrate.upgrade(database)
        assert column(database, "SELECT name FROM destination") == ["crisp"]
        database.close()

    def test_looking_makes_no_store(self, tmp_path: Path) -> None:
        database = Database(f"sqlite:///{tmp_path / 'new.db'}")
        assert migrate.version(database) is None
        database.close()
        assert list(tmp_path.iterdir()) == []

    def test_a_newer_store_is_refused_and_left_alone(self, database: Database) -> None:
        execute(database, "UPDATE alembic_version SET version_num = '9999'")
        try:
            with pytest.raises(StoreTooNew, match="9999") as refused:
                migrate.upgrade(database)
            with pytest.raises(StoreTooNew):
                migrate.check_readable(migrate.version(database))
            assert migrate.version(database) == "9999"
        finally:
            execute(database, "UPDATE alembic_version SET version_num = :v", v=migrate.HEAD)
        assert refused.value.exit_code == 78
        assert refused.value.hint is not None
        assert "upgrade" in refused.value.hint

    def test_one_that_became_newer_while_we_waited_is_refused(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another version migrates between our look and our turn."""
        execute(database, "UPDATE alembic_version SET version_num = '9999'")
        monkeypatch.setattr(migrate, "version", lambda _database: None)
        try:
            with pytest.raises(StoreTooNew):
                migrate.upgrade(database)
        finally:
            execute(database, "UPDATE alembic_version SET version_num = :v", v=migrate.HEAD)

    def test_an_older_store_is_not_read(self) -> None:
        with pytest.raises(StoreFailed, match="0000") as refused:
            migrate.check_readable("0000")
        assert refused.value.hint == "audience-sync db upgrade"
        migrate.check_readable(None)
        migrate.check_readable(migrate.HEAD)

    def test_killed_anywhere_it_leaves_nothing_and_a_rerun_works(self, empty_url: str) -> None:
        steps = ["1", "4", "8", str(len(schema.metadata.tables)), "end"]
        for step, killed, left in other_process(empty_url, "killed-migrations", *steps):
            assert killed == 9, step
            assert left == [], step
        database = Database(empty_url)
        assert migrate.upgrade(database)
        assert tables(database) == TABLES
        assert migrate.version(database) == migrate.HEAD
        database.close()

    def test_ten_processes_at_once(self, empty_url: str) -> None:
        answers = other_process(empty_url, "upgrade", "10")
        assert sorted(answers) == ["None"] * 9 + ["made"]
        database = Database(empty_url)
        assert tables(database) == TABLES
        assert migrate.version(database) == migrate.HEAD
        database.close()

    def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        path = tmp_path / "state.db"
        path.write_bytes(b"user_id,email\n" * 1000)
        database = Database(f"sqlite:///{path}")
        with pytest.raises(StoreFailed, match="not a database"):
            migrate.upgrade(database)
        database.close()
        assert path.read_bytes().startswith(b"user_id")

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        database = Database(f"sqlite:///{tmp_path}/missing/state.db")
        with pytest.raises(StoreFailed) as failed:
            migrate.upgrade(database)
        assert failed.value.hint is not None
        assert "folder" in failed.value.hint
