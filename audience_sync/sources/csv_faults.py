"""The first line of a CSV file that cannot be read, when DuckDB only says that there is one."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from itertools import islice

from audience_sync.errors import SourceRefused
from audience_sync.sources.csv_dialect import CsvFile, not_text, rows
from audience_sync.sources.file_bytes import OPEN

DATA = re.compile(r'@|^\s*([{<]|\[\s*[{"])|^\d+\Z')
"""In no name of a column, but in ids, JSON and web pages."""
MOST_LINES = 1_000_000
"""Lines looked at; only a file that is refused anyway is read a second time."""


def first_fault(file: CsvFile) -> SourceRefused | None:
    """The refusal that names the first bad line of ``file``, or ``None`` when none is found."""
    if len(file.dialect.delimiter) != 1:
        return None
    return _first_bad_row(file) or _first_other_line_end(file)


def check_header(name: str, columns: Sequence[str]) -> None:
    """A first row taken for a header would cost a member, and show ids in messages.

    Raises:
        SourceRefused: the first line does not name columns, or two of them alike.
    """
    if not any(columns) or any(DATA.search(column) for column in columns):
        raise SourceRefused(
            f"{name}: the first line does not name columns",
            hint="add a header line, or state that there is none: "
            f"read_csv('{name}', header = false, names = ['user_id', …])",
        )
    if any("\n" in column or "\r" in column for column in columns):
        raise SourceRefused(
            f"{name}: the header line goes on in the next one, inside quotes",
            hint=f"close the quote; or state that it is so: read_csv('{name}', header = true)",
        )
    seen: set[str] = set()
    for column in columns:
        if column and column.lower() in seen:
            raise SourceRefused(f"{name}: two columns are named {column}", hint="rename one")
        seen.add(column.lower())


def ragged(name: str, line: int, found: int, expected: int) -> SourceRefused:
    hint = "repair the line, or write the file again"
    if expected == 1:
        hint = "the first line must name the columns; state how many lines to skip above it"
    return SourceRefused(
        f"{name}: line {line} has {found} column{'s' * (found != 1)}, expected {expected}",
        hint=hint,
    )


def open_quote(name: str, line: int) -> SourceRefused:
    return SourceRefused(
        f"{name}: line {line} opens a quote that is not closed",
        hint='close it, or write the file again; inside quotes a quote is written twice: ""',
    )


def _first_bad_row(file: CsvFile) -> SourceRefused | None:
    begins = file.dialect.skip + 1
    try:
        with rows(file.path, file.dialect) as found:
            width = 0
            for row in islice(found, MOST_LINES):
                width = width or len(row)
                if row and len(row) != width:
                    return ragged(file.name, begins, len(row), width)
                begins = file.dialect.skip + getattr(found, "line_num", 0) + 1
    except UnicodeError:
        return _first_not_text(file)
    except csv.Error as error:
        return _bad_quote(file.name, begins, str(error))
    return None


def _first_not_text(file: CsvFile) -> SourceRefused:
    """A text stream decodes far ahead of the row it gives, so lines are decoded one by one."""
    number = 0
    with OPEN[file.dialect.packed](file.path) as unpacked:
        for number, line in enumerate(islice(unpacked, MOST_LINES), start=1):  # noqa: B007
            try:
                line.decode(file.dialect.encoding)
            except UnicodeError:
                break
    return not_text(file.name, number, file.dialect.encoding)


def _bad_quote(name: str, line: int, words: str) -> SourceRefused:
    if "expected after" not in words:
        return open_quote(name, line)
    return SourceRefused(
        f"{name}: line {line} goes on after a closing quote",
        hint='inside quotes a quote is written twice: ""',
    )


def _first_other_line_end(file: CsvFile) -> SourceRefused | None:
    with OPEN[file.dialect.packed](file.path) as unpacked:
        first: bool | None = None
        for number, line in enumerate(islice(unpacked, MOST_LINES), start=1):
            ends_in_crlf = line.endswith(b"\r\n")
            if first is not None and ends_in_crlf != first:
                return SourceRefused(
                    f"{file.name}: line {number} ends in {'CR LF' if ends_in_crlf else 'LF'}, "
                    "unlike the lines above it",
                    hint="write the file with one kind of line end",
                )
            first = ends_in_crlf
    return None
