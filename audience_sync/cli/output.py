"""Standard output and error, which may be closed, full, or read by nobody any more."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any, TextIO

import rich_click as click

from audience_sync.errors import AudienceSyncError


class OutputFailed(AudienceSyncError):
    """Standard output cannot be written, and not because its reader has gone."""

    exit_code = 74


def prepare() -> None:
    """Make standard output and error usable, whatever they were given as.

    One that is closed (``>&-``) is opened on /dev/null: else the next file to be opened, the
    store perhaps, gets its number, and what any library prints lands in it. Both are UTF-8, so
    that a program which reads them need not know the locale in which we ran.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def write(text: str, *, flush: bool = True) -> None:
    """Write to standard output.

    Raises:
        BrokenPipeError: nobody reads it any more.
        OutputFailed: it is full or broken.
    """
    with _told():
        sys.stdout.write(text)
        if flush:
            sys.stdout.flush()


class StandardOutput(io.RawIOBase):
    """Standard output for bytes; ``write`` writes all of them, and raises as the function does."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        with _told():
            # What is no terminal has a buffer; it takes everything, or raises.
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        return len(data)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        mute(sys.stdout)
        raise OutputFailed(f"the output could not be written ({error.strerror})") from None


def say(text: str) -> None:
    """Print a line. What is going on does not stop because nobody reads it any more.

    Raises:
        OutputFailed: standard output is full or broken.
    """
    try:
        write(text + "\n")
    except BrokenPipeError:
        mute(sys.stdout)


def warn(text: str) -> None:
    """Print a line to standard error; nothing can go wrong with that."""
    try:
        click.echo(text, err=True)
    except OSError:
        mute(sys.stderr)


def complain(error: AudienceSyncError) -> None:
    warn(f"audience-sync: {error}")
    if error.hint:
        warn(f"  {error.hint}")


def mute(stream: TextIO) -> None:
    """Let ``stream`` lead nowhere, so that what it still holds cannot fail at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def finish(code: int) -> int:
    """Write out what is still held back; the exit code after that."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            mute(stream)
        except OSError:
            mute(stream)
            code = code or OutputFailed.exit_code
    return code
