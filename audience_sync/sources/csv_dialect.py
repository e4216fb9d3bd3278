"""How a CSV file is read: what the query states, and strict values for all that it does not.

DuckDB guesses what is left open, and prefers a guess that skips rows over an error: a cut row, an
open quote or a title above the header then looks like a smaller audience.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from audience_sync.errors import SourceRefused
from audience_sync.sources.file_bytes import BYTE_ORDER_MARK, OPEN, compression, what_it_is
from audience_sync.sources.quoting import literal

Options = Mapping[str, str | None]
"""Options stated in the query, as text; ``None``: not a literal."""

DELIMITERS = ",;\t|"
DELIMITER_OPTIONS = ("delim", "sep", "delimiter")
NAMING_OPTIONS = ("columns", "names", "column_names")
ONE_CHARACTER = ("quote", "escape")
CHECKED_HERE = (*DELIMITER_OPTIONS, "quote", "escape", "skip", "header", "encoding", "compression")
LOSING: Mapping[str, str | None] = {
    "ignore_errors": "false",
    "null_padding": "false",
    "store_rejects": "false",
    "strict_mode": "true",
    "rejects_table": None,
    "rejects_scan": None,
    "rejects_limit": None,
}
"""Options by which rows are lost without an error, and the value that does no harm."""

BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
LONGEST_LINE = 2_000_000
"""Bytes; DuckDB's own limit."""
CODECS = MappingProxyType({"utf-8": "utf-8-sig", "utf-16": "utf-16", "latin-1": "latin-1"})
"""What DuckDB reads, with Python's names."""
QUOTED = re.compile(r'"[^"]*"?')


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    delimiter: str
    quote: str
    escape: str
    skip: int
    header: bool
    encoding: str
    packed: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CsvFile:
    """What the first lines of a file say. ``columns`` are of its header line, if it has one."""

    path: Path
    name: str
    dialect: Dialect
    columns: tuple[str, ...] = ()
    empty: bool = False
    """A header line and nothing below it."""
    has_header: bool = False
    unclear: bool = False
    """The first two rows cannot be told apart."""


def check_lossless(options: Options) -> None:
    """Raises SourceRefused for options under which a read could lose rows unseen."""
    for name, harmless in LOSING.items():
        if name in options and (
            harmless is None or _boolean(options, name) != (harmless == "true")
        ):
            raise SourceRefused(
                f"query: {name} cannot be used, as it loses rows without an error",
                hint="repair the file, or state how it is written (delim, quote, skip, encoding)",
            )


def check_options(options: Options) -> None:
    """Raises SourceRefused for options of read_csv that cannot be judged before it reads."""
    check_lossless(options)
    for name in CHECKED_HERE:
        if name in options and options[name] is None:
            raise SourceRefused(f"query: {name} must be a literal, so that it can be checked")
    for name in ONE_CHARACTER:
        if len(options.get(name) or "") > 1 or (options.get(name) or " ") in "\r\n\0":
            raise SourceRefused(f"query: {name} must be one character, or none")
    if "header" not in options and any(name in options for name in NAMING_OPTIONS):
        raise SourceRefused(
            "query: the columns are named, but not whether the file has a header line",
            hint="add header = true or header = false",
        )


def look_at(path: Path, name: str, options: Options) -> CsvFile:
    """Read the header line of the file that people know as ``name``.

    Raises:
        SourceRefused: there is no line, or it is no text.
        EOFError, zlib.error, OSError: the file cannot be read.
    """
    dialect = _dialect(path, name, options)
    if not dialect.header or len(dialect.delimiter) != 1:
        return CsvFile(path=path, name=name, dialect=dialect)
    try:
        with rows(path, dialect) as found:
            columns = tuple(column.strip() for column in next(found, []))
            empty = next((row for row in found if row), None) is None
    except (csv.Error, UnicodeError) as error:
        # A field over 128 kB is none for the csv module, but DuckDB reads it.
        unclear = "field larger" not in str(error)
        return CsvFile(path=path, name=name, dialect=dialect, unclear=unclear)
    return CsvFile(
        path=path, name=name, dialect=dialect, columns=columns, empty=empty, has_header=True
    )


def unsaid(dialect: Dialect, options: Options) -> Iterator[tuple[str, str]]:
    """The options that the query leaves open, with their values as SQL."""
    if not any(name in options for name in DELIMITER_OPTIONS):
        yield "delim", literal(dialect.delimiter)
    strict = {
        "quote": literal(dialect.quote),
        "escape": literal(dialect.escape),
        "skip": "0",
        "header": "true",
        "comment": "''",
        "strict_mode": "true",
    }
    yield from ((name, value) for name, value in strict.items() if name not in options)


@contextmanager
def rows(path: Path, dialect: Dialect) -> Iterator[Iterator[list[str]]]:
    """The rows of a file as the ``csv`` module reads them, below what is skipped."""
    doubled = dialect.escape == dialect.quote
    with OPEN[dialect.packed](path) as unpacked:
        stream = io.TextIOWrapper(unpacked, encoding=dialect.encoding, newline="")
        _skip_lines(stream, dialect.skip)
        yield csv.reader(
            stream,
            strict=True,
            delimiter=dialect.delimiter,
            quotechar=dialect.quote or None,
            quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
            doublequote=doubled,
            escapechar=None if doubled else dialect.escape or None,
        )


def _skip_lines(stream: IO[Any], number: int) -> None:
    """At most to the end of the file, however many there should be."""
    for _ in range(number):
        if not stream.readline(LONGEST_LINE):
            return


def delimiter_of(line: str) -> str:
    """The most frequent of comma, semicolon, tab and bar outside quotes; the comma for none."""
    return max(DELIMITERS, key=QUOTED.sub("", line).count)


def not_text(name: str, line: int, encoding: str, begins: bytes = b"") -> SourceRefused:
    """The refusal of a line that cannot be decoded, in a file that begins with these bytes."""
    return SourceRefused(
        f"{name}: line {line} is not {encoding.removesuffix('-sig').upper()} text",
        hint=what_it_is(name, begins),
    )


def _dialect(path: Path, name: str, options: Options) -> Dialect:
    packed = compression(path, options.get("compression"))
    encoding, skip = _codec(options), _skip(options)
    first = _first_line(path, name, packed, skip)
    line = first.decode(encoding, errors="replace")
    if encoding == "utf-8-sig" and ("\N{REPLACEMENT CHARACTER}" in line or "\0" in line):
        raise not_text(name, skip + 1, encoding, first)
    if encoding == "utf-16" and first.startswith(codecs.BOM_UTF16_BE):
        raise not_text(name, skip + 1, "utf-16 (little endian)", first)
    stated = [options[option] or "," for option in DELIMITER_OPTIONS if option in options]
    quote = options.get("quote", '"') or ""
    return Dialect(
        delimiter=stated[0].replace("\\t", "\t") if stated else delimiter_of(line),
        quote=quote,
        escape=options.get("escape", quote) or "",
        skip=skip,
        header=_boolean(options, "header") is not False,
        encoding=encoding,
        packed=packed,
    )


def _first_line(path: Path, name: str, packed: str, skip: int) -> bytes:
    with OPEN[packed](path) as unpacked:
        _skip_lines(unpacked, skip)
        line = bytes(unpacked.readline(LONGEST_LINE)).removeprefix(BYTE_ORDER_MARK)
    if not line:
        raise SourceRefused(
            f"{name}: the file is empty, without even a header line",
            hint="an audience without members is a header line with nothing below it",
        )
    return line


def _boolean(options: Options, name: str) -> bool | None:
    return BOOLEANS.get((options.get(name) or "").lower())


def _skip(options: Options) -> int:
    skip = options.get("skip") or "0"
    if not skip.isdecimal():
        raise SourceRefused("query: skip must be a number of lines")
    return int(skip)


def _codec(options: Options) -> str:
    encoding = options.get("encoding") or "utf-8"
    if encoding.lower() not in CODECS:
        raise SourceRefused(
            f"query: encoding = '{encoding}' cannot be read",
            hint=f"{', '.join(CODECS)} can; write files in any other anew",
        )
    return CODECS[encoding.lower()]
