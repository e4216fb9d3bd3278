"""The one DuckDB instance of a process: its memory limit holds for reading and comparing."""

from __future__ import annotations

from pathlib import Path

import duckdb


def open_instance(
    *, memory_limit: int, threads: int | None, spill: Path
) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB; ``.cursor()`` gives sessions of it.

    Args:
        memory_limit: bytes; what does not fit is spilled.
        threads: ``None`` for one per core.
        spill: folder for what does not fit; made when it is needed.

    Extensions are never fetched from the internet.
    """
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_limit // 1024}KiB",
        "temp_directory": str(spill),
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    if threads is not None:
        settings["threads"] = threads
    return duckdb.connect(":memory:", config=settings)
