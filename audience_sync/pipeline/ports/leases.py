"""The right to work on something, over all processes and nodes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Lease(Protocol):
    """The right to write for one name. Every transaction of the store checks its epoch."""

    name: str

    def remaining(self) -> float:
        """Seconds for which the lease surely holds; negative when it is over."""


class Leases(Protocol):
    def hold(self, name: str) -> AbstractContextManager[Lease]:
        """Raises LeaseTaken when another process holds ``name``."""
