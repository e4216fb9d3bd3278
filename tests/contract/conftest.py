"""A migrated store on SQLite and on PostgreSQL: every test that asks for one runs on both."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from audience_sync.store import migrate, schema
from audience_sync.store.engine import Database


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "migrated.db"
    _upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres_admin: Engine) -> str:
    name = "migrated_store"
    with postgres_admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = postgres_admin.url.set(database=name).render_as_string(hide_password=False)
    _upgrade(url)
    return url


@pytest.fixture
def sqlite_url(migrated_file: Path, tmp_path: Path) -> str:
    shutil.copy(migrated_file, tmp_path / "state.db")
    return f"sqlite:///{tmp_path / 'state.db'}"


@pytest.fixture(scope="session")
def postgres_store(migrated_postgres: str) -> Iterator[Database]:
    database = Database(migrated_postgres)
    yield database
    database.close()


@pytest.fixture
def emptied_postgres_url(migrated_postgres: str, postgres_store: Database) -> Iterator[str]:
    yield migrated_postgres
    with postgres_store.write() as connection:
        for table in reversed(schema.metadata.sorted_tables):
            connection.execute(table.delete())


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    fixture = "sqlite_url" if request.param == "sqlite" else "emptied_postgres_url"
    return str(request.getfixturevalue(fixture))


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where there is no store yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def database(store_url: str, request: pytest.FixtureRequest) -> Iterator[Database]:
    if store_url.startswith("postgresql"):
        yield request.getfixturevalue("postgres_store")
        return
    opened = Database(store_url)
    yield opened
    opened.close()


def _upgrade(url: str) -> None:
    database = Database(url)
    migrate.upgrade(database)
    database.close()
