"""What a span will walk, counted before it is opened."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from audience_sync.errors import StoreFailed

IN_MEMORY = 1024 * 1024
"""Characters of user ids that are put aside without a file."""


class Aside:
    """User ids in the order in which they came, on disk where there are many. To be closed."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115  # closed with us
            IN_MEMORY, mode="w+", encoding="utf-8", newline="\n"
        )

    def add(self, user_id: str) -> None:
        """``user_id`` has no control characters, so none that ends a line.

        Raises:
            StoreFailed: the disk is full.
        """
        try:
            self._file.write(f"{user_id}\n")
        except OSError as error:
            raise _failed(error) from None

    def __iter__(self) -> Iterator[str]:
        try:
            self._file.seek(0)
        except OSError as error:
            raise _failed(error) from None
        for line in self._file:
            yield line[:-1]

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """Members in all, and those of them who are told again. To be closed."""

    total: int
    again: Aside | None
    """``None``: all who stand."""

    def close(self) -> None:
        if self.again is not None:
            self.again.close()


def _failed(error: OSError) -> StoreFailed:
    return StoreFailed(
        f"user ids cannot be put aside in {tempfile.gettempdir()}: {error.strerror}",
        hint="make room there, or point TMPDIR elsewhere",
    )
