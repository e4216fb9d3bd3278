"""A file as destination: every call one JSON line, exactly as it would stand in Segment's batch."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from audience_sync.destinations.calls import START, call_by_hand, calls_per_change, member_calls
from audience_sync.domain.audience import Kind, Tell
from audience_sync.domain.by_hand import ByHand
from audience_sync.domain.span import Refusal
from audience_sync.errors import DestinationPaused, RetryLater
from audience_sync.pipeline.ports.sending import (
    ALL_ACCEPTED,
    EachByItself,
    MaySend,
    MemberCalls,
    Sent,
    Told,
    at_once,
)

LOCK_PATIENCE = 5.0
"""Seconds to wait for the other lane's append; one takes milliseconds."""

BLOCK = 64 * 1024

NEVER = frozenset({errno.ELOOP, errno.ENAMETOOLONG})
"""Of a path that cannot be one."""


@dataclass(kw_only=True, slots=True, eq=False)
class NdjsonDestination:
    """A ``Destination``. ``rate`` is in lines per second, ``deadline`` in seconds."""

    name: str
    path: Path
    fingerprint: str
    rate: float
    reserve: float
    quota: int | None = None
    unit: str = "call"
    bundles: bool = False
    with_track: bool = False
    concurrency: int = 1
    max_calls: int = 500
    max_bytes: int = 475_000
    deadline: float = 30.0

    def look_ahead(self, members: Sequence[Sequence[Told]]) -> None:
        """Nothing is read for calls."""

    def calls(self, told: Sequence[Told]) -> MemberCalls | Refusal:
        return member_calls(
            told,
            fingerprint=self.fingerprint,
            integrations={},
            with_track=self.with_track,
        )

    def by_hand(self, call: ByHand, installation: str) -> MemberCalls | Refusal:
        return call_by_hand(
            call,
            installation=installation,
            fingerprint=self.fingerprint,
            integrations={},
        )

    def calls_per_change(self, change: Tell, kind: Kind) -> int:
        return calls_per_change(change, kind, with_track=self.with_track)

    def meter(self) -> EachByItself:
        return EachByItself()

    def count(self) -> None:
        """Calls are counted."""

    def sender(self) -> NdjsonSender:
        return NdjsonSender(name=self.name, path=self.path)

    def reach(self) -> None:
        """Return when the file can be written; makes none and changes none.

        Raises:
            DestinationPaused: it cannot.
        """
        with explained(self.name, self.path):
            if not self.path.parent.is_dir():
                raise FileNotFoundError
            there = mode_of(self.path)
            if there is not None and not stat.S_ISREG(there):
                raise IsADirectoryError
            if not os.access(self.path.parent if there is None else self.path, os.W_OK):
                raise PermissionError
            if there is not None:
                with self.path.open("rb") as file:
                    check_ours(self.name, self.path, file.read(len(START)))


class NdjsonSender:
    """A ``Sender``. The file is opened for each append, so it may be moved away in between."""

    def __init__(self, *, name: str, path: Path) -> None:
        self._name = name
        self._path = path

    def send(self, members: Sequence[MemberCalls], may_send: MaySend = at_once) -> Sent:
        """Append all and have them on the disk, or leave the file as it was.

        Raises:
            DestinationPaused: the path can never be written.
            RetryLater: it could not be written now (disk full, I/O error, locked).
        """
        if not members:
            return ALL_ACCEPTED
        may_send(sum(member.cost for member in members))
        lines = b"".join(body + b"\n" for member in members for body in member.bodies)
        with explained(self._name, self._path), opened(self._path) as file:
            self._lock(file)
            check_ours(self._name, self._path, os.pread(file, len(START), 0))
            self._cut_torn_line(file)
            append(file, lines)
        return ALL_ACCEPTED

    def close(self) -> None:
        """Nothing is open between appends."""

    def _lock(self, file: int) -> None:
        """Both lanes write to the file; what the other has half written is not ours to cut."""
        end = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise RetryLater(f"{self._name}: {self._path} stays locked") from None
                time.sleep(0.01)

    def _cut_torn_line(self, file: int) -> None:
        """Cut what a killed append left behind; its calls were not accepted and come again.

        A file that is not ours is left alone. Zeros are what some file systems leave at the end
        of a file after a power cut.
        """
        size = os.fstat(file).st_size
        start = last_line(file, size)
        if start == size:
            return
        torn = os.pread(file, len(START), start).rstrip(b"\0")
        if not START.startswith(torn):
            raise DestinationPaused(
                f"{self._name}: the last line of {self._path} is not a call and has no end",
                hint="choose another path, or end the line",
            )
        os.ftruncate(file, start)


def check_ours(name: str, path: Path, begins: bytes) -> None:
    """Raises DestinationPaused for a file that begins with something else than a call, such as
    a source's data: nothing is appended to it."""
    if not START.startswith(begins.rstrip(b"\0")):
        raise DestinationPaused(
            f"{name}: {path} holds something else than calls",
            hint="choose another path, or move the file away",
        )


def mode_of(path: Path) -> int | None:
    """``None`` when nothing is there; ``pathlib`` says the same of links that lead in a circle."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of the regular file at ``path``, made if it is missing; never blocks."""
    missing = not path.exists()
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise IsADirectoryError
        if missing:
            sync_folder(path.parent)
        yield file
    finally:
        os.close(file)


def append(file: int, lines: bytes) -> None:
    before = os.fstat(file).st_size
    try:
        written = 0
        while written < len(lines):
            written += os.write(file, lines[written:])
        os.fsync(file)
    except BaseException:
        os.ftruncate(file, before)
        raise


def last_line(file: int, size: int) -> int:
    """Where the unended last line starts; ``size`` when the file ends with a newline."""
    end = size
    while end > 0:
        start = max(0, end - BLOCK)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def sync_folder(folder: Path) -> None:
    """Without it a new file's name may be gone after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explained(name: str, path: Path) -> Iterator[None]:
    """Turn the system's errors into what the caller does next."""
    try:
        yield
    except IsADirectoryError:
        raise DestinationPaused(
            f"{name}: {path} is not a regular file",
            hint="`path` names a file; it need not exist yet",
        ) from None
    except (FileNotFoundError, NotADirectoryError):
        raise DestinationPaused(
            f"{name}: the folder {path.parent} does not exist", hint="make it, or change `path`"
        ) from None
    except PermissionError:
        raise DestinationPaused(
            f"{name}: no permission to write {path}", hint="let this user read and write it"
        ) from None
    except OSError as error:
        text = f"{name}: {path} could not be written ({error.strerror})"
        if error.errno in NEVER:
            raise DestinationPaused(text, hint="choose another `path`") from None
        raise RetryLater(text) from None
