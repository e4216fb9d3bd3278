"""The bytes of a file, unpacked, and whether its last line was written to the end."""

from __future__ import annotations

import codecs
import gzip
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, cast

import pyarrow as pa

from audience_sync.errors import SourceRefused

EDGE = 4096
PIECE = 1 << 20
WHITESPACE = b" \t\r\n"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def _open_zstd(path: Path) -> BinaryIO:
    return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))


def _open_gzip(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb"))


def _open_plain(path: Path) -> BinaryIO:
    return path.open("rb")


OPEN: Mapping[str, Callable[[Path], BinaryIO]] = MappingProxyType(
    {"none": _open_plain, "gzip": _open_gzip, "zstd": _open_zstd}
)
SUFFIXES: Mapping[str, str] = MappingProxyType({".gz": "gzip", ".zst": "zstd"})

MAGIC: Mapping[bytes, str] = MappingProxyType({b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Edges:
    """The first and the last 4,096 unpacked bytes (fewer when the file has fewer).

    ``marked``: a byte order mark, left out of ``first``, comes before them.
    """

    first: bytes
    last: bytes
    marked: bool


def compression(path: Path, stated: str | None = None) -> str:
    """``none``, ``gzip`` or ``zstd``: as stated in the query, else by the file's name.

    Raises:
        SourceRefused: some other compression is stated.
    """
    if stated is None or stated in {"auto", "auto_detect"}:
        return SUFFIXES.get(path.suffix.lower(), "none")
    if stated not in OPEN:
        raise SourceRefused(f"compression = '{stated}' is not known", hint="none, gzip or zstd")
    return stated


def edges(path: Path, packed: str) -> Edges:
    """Reads a packed file whole: only so is it known that nothing of it is missing.

    Raises:
        EOFError, zlib.error, OSError: a packed file that is damaged or cut, or a file that
            cannot be read.
    """
    with OPEN[packed](path) as stream:
        first = last = bytes(stream.read(EDGE))
        if packed == "none":
            last = b""
            stream.seek(-min(EDGE, os.fstat(stream.fileno()).st_size), os.SEEK_END)
        while piece := bytes(stream.read(PIECE)):
            last = (last + piece)[-EDGE:]
    marked = first.startswith(BYTE_ORDER_MARK)
    return Edges(first=first.removeprefix(BYTE_ORDER_MARK), last=last, marked=marked)


def what_it_is(name: str, begins: bytes) -> str:
    """What to do about a file that is no UTF-8 text, by the bytes it begins with."""
    for magic, packed in MAGIC.items():
        if begins.startswith(magic):
            return f"it is packed: read_csv('{name}', compression = '{packed}')"
    if begins.startswith(b"PK\x03\x04"):
        return "it is a ZIP or an Excel file: write it as CSV"
    if begins.startswith(codecs.BOM_UTF16_BE):
        return "it is UTF-16 with the high bytes first: write it as UTF-8"
    encoding = "utf-16" if b"\0" in begins else "latin-1"
    return f"state its encoding: read_csv('{name}', encoding = '{encoding}')"


def check_lines_end(name: str, found: Edges, *, encoding: str = "utf-8") -> None:
    """Raises SourceRefused when the last line has no end, as after a cut."""
    ends = (b"\n", b"\n\0") if "16" in encoding else (b"\n",)
    if not found.last.endswith(ends):
        raise SourceRefused(
            f"{name}: the last line is cut or still being written",
            hint="end the file with a line end; write a new file and rename it into place",
        )


def check_json_ends(name: str, found: Edges) -> None:
    """Raises SourceRefused when an array is not closed or the last line has no end.

    DuckDB takes ``[{…},`` for a whole array of one, and an array after a byte order mark for one
    value.
    """
    if not found.first.lstrip(WHITESPACE).startswith(b"["):
        check_lines_end(name, found)
    elif not found.last.rstrip(WHITESPACE).endswith(b"]"):
        raise SourceRefused(
            f"{name}: the array is cut or still being written",
            hint="end the file with ]; write a new file and rename it into place",
        )
    elif found.marked:
        raise SourceRefused(
            f"{name}: begins with a byte order mark", hint="save it as UTF-8 without one"
        )


def is_empty_json(found: Edges) -> bool:
    """No value at all: nothing, or an empty array."""
    return found.first.translate(None, WHITESPACE) in {b"", b"[]"}
