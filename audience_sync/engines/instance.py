"""The one DuckDB instance of a process: its memory limit holds for reading and comparing."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb

from audience_sync.errors import StoreFailed

LOCK = "lock"


@dataclass(frozen=True, kw_only=True, slots=True)
class Spill:
    """A folder that is ours until ``lock`` is closed."""

    folder: Path
    lock: int

    def release(self) -> None:
        """Remove the folder, before somebody else may think that it was left over."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.lock)


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    connection: duckdb.DuckDBPyConnection
    spill: Spill

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A new session."""
        return self.connection.cursor()

    def close(self) -> None:
        """No session may be at work. May be called again."""
        self.connection.close()
        if self.spill.folder.exists():
            self.spill.release()


def open_instance(*, memory_limit: int, threads: int | None, spill: Path) -> Instance:
    """An in-memory DuckDB; ``.cursor()`` gives sessions of it.

    Args:
        memory_limit: bytes; what does not fit is spilled.
        threads: ``None`` for one per core.
        spill: folder for what does not fit; each process has a folder of its own in it.

    Extensions are never fetched from the internet.

    Raises:
        StoreFailed: the folder cannot be made, or belongs to somebody else.
    """
    held = spill_folder(spill)
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_limit // 1024}KiB",
        "temp_directory": str(held.folder),
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    if threads is not None:
        settings["threads"] = threads
    return Instance(connection=duckdb.connect(":memory:", config=settings), spill=held)


def spill_folder(parent: Path) -> Spill:
    """A folder that no other process uses, as DuckDB's files there have the same names always.

    It holds user ids while it is used, so nobody else may read it. Folders of processes that
    were killed are removed: the lock of a living process is held.
    """
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if parent.stat().st_uid != os.geteuid():
            raise StoreFailed(
                f"the spill folder {parent} belongs to another user",
                hint="choose another one: [engine] spill",
            )
        _sweep(parent)
        return _own_folder(parent)
    except OSError as error:
        raise StoreFailed(
            f"the spill folder {parent} cannot be used ({error.strerror})",
            hint="choose another one: [engine] spill",
        ) from None


def _own_folder(parent: Path) -> Spill:
    """Another process may sweep a new folder away before its lock is held: then another one."""
    while True:
        made = Path(tempfile.mkdtemp(dir=parent))
        with suppress(FileNotFoundError):
            if (lock := _lock(made)) is not None and (made / LOCK).exists():
                return Spill(folder=made, lock=lock)


def _sweep(parent: Path) -> None:
    for folder in parent.iterdir():
        # One without a lock is being made by another process at this moment, or is not ours.
        # And another process may be sweeping, too.
        with suppress(FileNotFoundError):
            if (folder / LOCK).exists() and (lock := _lock(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _lock(folder: Path) -> int | None:
    """Hold the folder until the process ends, however it ends; ``None`` if another one does."""
    lock = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
