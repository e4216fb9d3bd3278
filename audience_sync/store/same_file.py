"""A SQLite store is one file for as long as a process uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from audience_sync.errors import StoreFailed

Identity = tuple[int, int] | None
"""Device and inode; ``None``: there is no such file."""


def require_same_file(engine: Engine, path: Path) -> None:
    """Let every connection fail once ``path`` is no longer the file that was opened first.

    SQLite goes on in a file that was removed or replaced, and makes an empty one for the next
    connection: this process and all others would then each tell by a store of their own, and no
    order would be heard. A file that is put back is the same one.

    The connections raise StoreFailed.
    """
    opened: list[Identity] = []

    def check(*_whatever: Any) -> None:
        if opened and _identity(path) != opened[0]:
            raise StoreFailed(
                f"the store failed: {path} was removed or replaced while it was in use",
                hint="end all that use the store, put the file back, and start anew",
            )

    def remember(*_whatever: Any) -> None:
        if not opened and (found := _identity(path)):
            opened.append(found)

    event.listen(engine, "do_connect", check)
    event.listen(engine, "connect", remember)
    event.listen(engine, "checkout", check)


def _identity(path: Path) -> Identity:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
