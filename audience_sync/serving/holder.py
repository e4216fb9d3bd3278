"""Who listens where we want to, as far as Linux shows it."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
TABLES = ("net/tcp", "net/tcp6")
LISTENS = "0A"
"""The state of a socket in those tables."""


class Listening(NamedTuple):
    """A row of the kernel's tables; ``address`` as the kernel writes it."""

    address: str
    port: int
    user: int
    inode: int


def holder(host: str, port: int) -> str | None:
    """``process 4711 (nginx)``, ``a process of root`` where we may not see more; ``None``: unknown.

    Args:
        host: an IP address.
    """
    for listening in _listening():
        if listening.port == port and _meet(listening.address, _written(host)):
            return _process(listening.inode) or f"a process of {_name(listening.user)}"
    return None


def _listening() -> Iterator[Listening]:
    for table in TABLES:
        with suppress(OSError):
            for row in (PROC / table).read_text().splitlines()[1:]:
                _, local, _, state, *_, user, _, inode = row.split()[:10]
                if state == LISTENS:
                    address, port = local.split(":")
                    yield Listening(address, int(port, 16), int(user), int(inode))


def _written(host: str) -> str:
    """As the kernel writes it: each four bytes as a number of this machine."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    words = [packed[at : at + 4] for at in range(0, len(packed), 4)]
    return "".join(f"{int.from_bytes(word, 'little'):08X}" for word in words)


def _meet(one: str, other: str) -> bool:
    """Whether they are the same, or one means every address."""
    return one == other or not one.strip("0") or not other.strip("0")


def _process(inode: int) -> str | None:
    """Its name only: arguments may hold secrets."""
    for folder in PROC.iterdir():
        if folder.name.isdigit() and _holds(folder, f"socket:[{inode}]"):
            with suppress(OSError):
                return f"process {folder.name} ({(folder / 'comm').read_text().strip()})"
    return None


def _holds(folder: Path, wanted: str) -> bool:
    with suppress(OSError):  # another user's, or one that has just ended
        for file in (folder / "fd").iterdir():
            with suppress(OSError):
                if os.readlink(file) == wanted:
                    return True
    return False


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
