"""What the store does when the ground gives way: full, locked, damaged, read-only, cut off."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, text

from audience_sync.domain.audience import Seq
from audience_sync.errors import StoreFailed
from audience_sync.store import engine
from audience_sync.store.engine import Database
from audience_sync.store.schema import destination
from tests.fakes.snapshot_log import Log, column, execute, people, scalar

TOP = Path(__file__).parents[2]
LARGE = people(*(f"{n * 2654435761 % 2**32:08x}" for n in range(3_000)))


def other_process(url: str, *orders: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fakes.store_process", url, *orders],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.fixture
def file_store(sqlite_url: str) -> Iterator[Database]:
    database = Database(sqlite_url)
    yield database
    database.close()


class TestFull:
    def test_no_room_for_what_is_staged(self, sqlite_url: str, file_store: Database) -> None:
        """A process whose files may not grow: the disk refuses in the middle of a write."""
        found = other_process(sqlite_url, "stage-without-room")
        assert found["exit_code"] == 74
        assert "I/O" in str(found["error"])
        assert "disk" in str(found["hint"])
        assert found["seen_after"] == [1, 3]
        assert found["seen_with_room"] == [2, 3_000]
        assert column(file_store, "SELECT state FROM snapshot ORDER BY id") == [
            "current",
            "current",
        ]
        assert scalar(file_store, "PRAGMA integrity_check") == "ok"

    def test_full_is_said_with_what_to_do(self, file_store: Database) -> None:
        log = Log(file_store, rows_per_chunk=100)
        log.put(people("a", "b", "c"))
        pages = scalar(file_store, "PRAGMA page_count")
        execute(file_store, f"PRAGMA max_page_count = {pages + 4}")
        with pytest.raises(StoreFailed, match="full") as failed:
            log.stage(LARGE, base=True)
        assert (failed.value.exit_code, failed.value.hint) == (
            74,
            "make room on the disk; the next run goes on where this one stopped",
        )
        assert log.members(1) == people("a", "b", "c")
        execute(file_store, "PRAGMA max_page_count = 1000000")
        log.snapshots.sweep(log.key, log.lease)
        log.put(LARGE, base=True)
        assert log.members(2) == LARGE


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process that is writing and does not come to an end."""
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield
    finally:
        process.kill()
        process.communicate()


class TestLocked:
    def test_a_writer_waits_and_then_says_why(
        self, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(engine, "LOCK_WAIT", 0.2)
        database = Database(sqlite_url)
        log = Log(database)
        log.put(people("a"))
        assert database.path is not None
        with locked(database.path):
            with pytest.raises(StoreFailed, match="locked") as failed:
                log.stage(people("b"))
            assert log.members(1) == people("a")
        assert failed.value.hint == "another process holds the store; the next run goes on"
        log.put(people("b"))
        assert log.members(2) == people("b")
        database.close()

    def test_a_writer_that_comes_to_an_end_in_time_is_waited_for(
        self, sqlite_url: str, file_store: Database
    ) -> None:
        log, other = Log(file_store), Database(sqlite_url)
        with other.write():
            thread = threading.Thread(target=log.put, args=(people("a"),))
            thread.start()
            thread.join(0.2)
            assert thread.is_alive()
        thread.join(10)
        other.close()
        assert log.members(1) == people("a")


class TestDamaged:
    @pytest.mark.parametrize("part", ["base", "changes"])
    @pytest.mark.parametrize("kept", [0, 3, 0.5, -1])
    def test_a_chunk_that_was_cut(self, database: Database, part: str, kept: float) -> None:
        log = self.log(database)
        payload = self.payload(log, part)
        whole = len(payload)
        self.store(log, part, payload[: int(kept * whole) if 0 < kept < 1 else int(kept)])
        self.assert_noticed(log)

    def test_any_flipped_bit(self, database: Database) -> None:
        """Neither Arrow nor its zstd notices: another user would be told."""
        log = self.log(database)
        payload = self.payload(log, "base")
        bits = len(payload) * 8
        for bit in [*range(0, bits, bits // 20), bits - 1]:
            flipped = bytearray(payload)
            flipped[bit // 8] ^= 1 << bit % 8
            self.store(log, "base", bytes(flipped))
            self.assert_noticed(log)
        self.store(log, "base", payload)
        assert log.members(2) == log.kept[2]

    def test_a_chunk_that_is_missing(self, database: Database) -> None:
        log = self.log(database)
        execute(database, "DELETE FROM chunk WHERE part = 'base' AND ordinal = 1")
        for read in (self.walk, self.membership):
            with pytest.raises(StoreFailed, match="no longer kept"):
                read(log)

    def log(self, database: Database) -> Log:
        log = Log(database, rows_per_chunk=10)
        log.put(people(*(f"u{n}" for n in range(30))))
        log.put(people(*(f"u{n}" for n in range(5, 35))))
        return log

    def payload(self, log: Log, part: str) -> bytes:
        sql = "SELECT payload FROM chunk WHERE part = :part AND ordinal = 0"
        return bytes(scalar(log.database, sql, part=part))

    def store(self, log: Log, part: str, payload: bytes) -> None:
        sql = "UPDATE chunk SET payload = :payload WHERE part = :part AND ordinal = 0"
        execute(log.database, sql, payload=payload, part=part)

    def assert_noticed(self, log: Log) -> None:
        for read in (self.walk, self.membership):
            with pytest.raises(StoreFailed, match="damaged") as failed:
                read(log)
            assert failed.value.hint == "restore the store from a backup"

    def walk(self, log: Log) -> None:
        log.members(2)

    def membership(self, log: Log) -> None:
        found = log.snapshots.membership(log.key, Seq(2))
        for part in (found.base, *found.changes):
            list(part())

    def test_a_file_that_was_cut(self, sqlite_url: str) -> None:
        database = Database(sqlite_url)
        log = Log(database, rows_per_chunk=100)
        log.put(LARGE)
        database.close()
        assert database.path is not None
        os.truncate(database.path, database.path.stat().st_size // 2)
        cut = Database(sqlite_url)
        with pytest.raises(StoreFailed) as failed:
            Log(cut).put(people("a"))
        cut.close()
        assert failed.value.hint == "restore the store from a backup"


class TestReadOnly:
    @pytest.fixture
    def open_folder(self, migrated_file: Path) -> Iterator[Path]:
        """A folder that every user may pass through, unlike pytest's."""
        folder = Path(tempfile.mkdtemp(prefix="audience-sync-ro-"))
        shutil.copy(migrated_file, folder / "state.db")
        yield folder
        folder.chmod(0o700)
        shutil.rmtree(folder)

    def test_it_says_what_to_look_at(self, open_folder: Path) -> None:
        path = open_folder / "state.db"
        path.chmod(0o444)
        open_folder.chmod(0o777)
        before = path.read_bytes()
        found = other_process(f"sqlite:///{path}", "write-as-nobody")
        assert found["exit_code"] == 74
        assert found["hint"] == "check the folder and the permissions of [store] url"
        assert path.read_bytes() == before


class TestSessionTerminated:
    def terminate(self, admin: Engine, database: Database) -> None:
        with admin.connect() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = :name AND pid != pg_backend_pid()"
                ),
                {"name": database.url.database},
            )

    @pytest.fixture
    def log(self, emptied_postgres_url: str) -> Iterator[Log]:
        database = Database(emptied_postgres_url)
        log = Log(database)
        log.put(people("a", "b"))
        yield log
        database.close()

    def test_between_transactions_nobody_notices(self, log: Log, postgres_admin: Engine) -> None:
        self.terminate(postgres_admin, log.database)
        assert log.members(1) == people("a", "b")
        self.terminate(postgres_admin, log.database)
        log.put(people("a"))
        assert log.members(2) == people("a")

    def test_in_the_middle_of_a_write(self, log: Log, postgres_admin: Engine) -> None:
        def cut_off() -> None:
            with log.database.write(log.lease) as connection:
                connection.execute(insert(destination).values(name="crisp"))
                self.terminate(postgres_admin, log.database)
                connection.execute(insert(destination).values(name="segment"))

        with pytest.raises(StoreFailed) as failed:
            cut_off()
        assert failed.value.exit_code == 74
        assert column(log.database, "SELECT name FROM destination") == []
        log.put(people("a"))
        assert log.members(2) == people("a")

    def test_before_the_commit(self, log: Log, postgres_admin: Engine) -> None:
        def cut_off() -> None:
            with log.database.write() as connection:
                connection.execute(insert(destination).values(name="crisp"))
                self.terminate(postgres_admin, log.database)

        with pytest.raises(StoreFailed):
            cut_off()
        assert column(log.database, "SELECT name FROM destination") == []

    def test_in_the_middle_of_a_walk(self, log: Log, postgres_admin: Engine) -> None:
        """Nothing is held open between chunks, so there is nothing to cut."""
        log.put(people(*"abcdefgh"))
        walk = log.spans.net(log.key, Seq(0), Seq(2))
        first = [next(walk) for _ in range(3)]
        self.terminate(postgres_admin, log.database)
        assert first + list(walk) == log.difference(0, 2)

    def test_a_server_that_is_not_there(self) -> None:
        database = Database("postgresql://nobody@/audience_sync?host=/nowhere")
        with pytest.raises(StoreFailed) as failed:
            scalar(database, "SELECT 1")
        assert failed.value.exit_code == 74
        database.close()


def test_a_postgresql_that_vanishes_is_not_waited_for_forever(postgres_url: str) -> None:
    """Keepalives and a limit on what is not acknowledged; the URL may say otherwise."""
    joint = "&" if "?" in postgres_url else "?"
    for url, user_timeout in (
        (postgres_url, "30000"),
        (f"{postgres_url}{joint}tcp_user_timeout=7", "7"),
    ):
        database = Database(url)
        with database.read() as connection:
            said = connection.connection.dbapi_connection.info.get_parameters()  # type: ignore[union-attr]
        database.close()
        assert said["connect_timeout"] == "10"
        assert said["keepalives_idle"] == "30"
        assert said["tcp_user_timeout"] == user_timeout
