"""Reading the text files that a configuration consists of."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path


class Unreadable(Exception):
    """A file that is no text; ``str`` says why, to stand after its name."""

    def __init__(self, text: str, *, hint: str | None = None, line: int | None = None) -> None:
        super().__init__(text)
        self.hint = hint
        self.line = line


class Missing(Unreadable):
    def __init__(self) -> None:
        super().__init__(
            "does not exist", hint="check the path; it is relative to the file that names it"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFile:
    text: str
    world_readable: bool


def read(path: Path, *, limit: int) -> TextFile:
    """The UTF-8 text of a regular file (a byte order mark is dropped).

    Args:
        limit: bytes; a longer file is surely not what was meant.

    Raises:
        Missing: no file.
        Unreadable: not a regular one, too long, not UTF-8, or holding NUL.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise Unreadable("is a directory", hint="name a file")
        if not stat.S_ISREG(mode):
            raise Unreadable("is not a regular file", hint="pipes and devices are never read")
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise Missing from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a usable path"
        hint = "check its permissions, and the disk it is on"
        raise Unreadable(f"cannot be read: {reason}", hint=hint) from None
    if len(data) > limit:
        raise Unreadable(f"is larger than {limit:,} bytes", hint="is it the right file?")
    return TextFile(text=_decoded(data), world_readable=bool(mode & stat.S_IROTH))


def _decoded(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable("is not UTF-8 text", hint="save it as UTF-8", line=line) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        hint = "save it as UTF-8 text"
        raise Unreadable("holds a NUL byte, so it is not text", hint=hint, line=line)
    return text
