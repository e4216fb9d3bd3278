"""What DuckDB, Arrow and the system say when a read fails, in words without anybody's data.

Their messages quote rows and values, and advise to ignore errors. Only line numbers, counts, type
names and what the query's author wrote are passed on.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from audience_sync.errors import SourceFailed, SourceRefused
from audience_sync.sources.csv_dialect import LONGEST_LINE, CsvFile, not_text
from audience_sync.sources.csv_faults import first_fault, open_quote, ragged
from audience_sync.sources.file_format import Format
from audience_sync.sources.file_names import Selection

READING_ERRORS = (duckdb.Error, pa.ArrowException, OSError, EOFError, zlib.error, UnicodeError)

ABOUT_THE_QUERY = ("Binder Error", "Parser Error", "Catalog Error", "Syntax Error")
ABOUT_A_VALUE = ("Conversion Error", "Out of Range Error", "Invalid Input Error", "Mismatch Type")
BROKEN_PACKAGE = (EOFError, zlib.error, gzip.BadGzipFile)
BROKEN_PACKAGE_WORDS = ("GZIP", "ZSTD", "compressed stream")
BROKEN_PARQUET_WORDS = ("Parquet", "magic bytes", "TProtocol", "Thrift", "Snappy", "ZSTD", "GZIP")
CSV_LINE = re.compile(r"CSV Error on Line: (\d+)")
CSV_COLUMNS = re.compile(r"^Expected Number of Columns: (\d+) Found: (\d+)", re.MULTILINE)
CSV_TYPE = re.compile(r"^Column (.*?) is being converted as type ([A-Z]\w*)", re.MULTILINE)
JSON_PLACE = re.compile(r'in file "[^"]*", (?:at byte \d+ )?in (line|record/value) (\d+)')
TYPE = re.compile(
    r"\b(BIGINT|BOOL(?:EAN)?|DATE|DECIMAL|DOUBLE|FLOAT|HUGEINT|INTEGER|U?INT\d+|INTERVAL|SMALLINT"
    r"|TIME(?:STAMP)?(?: WITH TIME ZONE)?|TINYINT|UUID)\b(?=[^'\"]*\Z)"
)
"""The name of a type, after the last quoted value."""
NOT_FOR_TEXT = re.compile(r"Cannot compare values of type VARCHAR|No function matches.*\(VARCHAR")
IS_TEXT = (
    "the column is text, as some value is not written like the others (2026-01-31, 1234, true); "
    "state its type to be told the line, as in "
    "read_csv('orders.csv', types = {'completed_at': 'TIMESTAMPTZ'}), "
    "or how it is written: dateformat = '%d/%m/%Y'"
)
LONGEST = 300
"""Characters of one line of DuckDB's about the query."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadFile:
    """A file of the query: where it is, and the name by which people know it."""

    path: Path
    name: str
    format: Format
    csv: CsvFile | None = None


@contextmanager
def explaining(files: Sequence[ReadFile], selections: Sequence[Selection] = ()) -> Iterator[None]:
    """Turn ``READING_ERRORS`` into what a person can use.

    Raises:
        SourceRefused: the data or the query cannot be used.
        SourceFailed, SourceReplaced: the read did not finish, or a file changed meanwhile.
    """
    try:
        yield
    except READING_ERRORS as error:
        changed = next(filter(None, (selection.change() for selection in selections)), None)
        raise changed or explained(error, files) from None


def explained(error: Exception, files: Sequence[ReadFile]) -> SourceFailed:
    """What to raise for ``error``, one of ``READING_ERRORS``."""
    text = str(error)
    file = _file_of(text, files)
    name = file.name if file else "query"
    if isinstance(error, OSError) and error.errno is not None:
        return _of_the_system(error, files)
    found = _of_the_engine(text) or _of_the_file(error, file) or _of_the_data(text, name)
    return found or SourceFailed(f"{name}: DuckDB did not finish the read ({type(error).__name__})")


def _of_the_engine(text: str) -> SourceFailed | None:
    if text.startswith(ABOUT_THE_QUERY):
        return _of_the_query(text)
    if text.startswith("Out of Memory Error"):
        return SourceFailed(
            "query: needs more memory, or room to spill, than DuckDB may use",
            hint="raise memory_limit in [engine], or read fewer columns",
        )
    return None


def _of_the_file(error: Exception, file: ReadFile | None) -> SourceRefused | None:
    text = str(error)
    if file is None:
        return None
    if file.csv and _has(text, ("CSV", "sniff")):
        return _of_csv(text, file.csv)
    if file.format is Format.PARQUET and _has(text, BROKEN_PARQUET_WORDS):
        return SourceRefused(f"{file.name}: not a whole Parquet file", hint="write it again")
    if isinstance(error, BROKEN_PACKAGE) or _has(text, BROKEN_PACKAGE_WORDS):
        return SourceRefused(
            f"{file.name}: the packed file is damaged or cut", hint="write it again"
        )
    return None


def _of_the_data(text: str, name: str) -> SourceRefused | None:
    if place := JSON_PLACE.search(text):
        return _of_json(text, name, place)
    return _of_a_value(text) if text.startswith(ABOUT_A_VALUE) else None


def _has(text: str, words: Sequence[str]) -> bool:
    return any(word in text for word in words)


def _file_of(text: str, files: Sequence[ReadFile]) -> ReadFile | None:
    """The only file, or the one with the longest path that is mentioned."""
    if len(files) == 1:
        return files[0]
    named = [file for file in files if str(file.path) in text]
    return max(named, key=lambda file: len(str(file.path)), default=None)


def _of_the_system(error: OSError, files: Sequence[ReadFile]) -> SourceFailed:
    names = {str(file.path): file.name for file in files}
    name = names.get(str(error.filename), error.filename) or ", ".join(names.values())
    if isinstance(error, PermissionError):
        return SourceRefused(
            f"{name}: may not be read (permission denied)",
            hint="let the user that audience-sync runs as read it",
        )
    return SourceFailed(f"{name}: {error.strerror or type(error).__name__}")


def _of_the_query(text: str) -> SourceRefused:
    """The author's own words, and the names of columns: two lines of them."""
    lines = [line.strip() for line in text.partition("\nLINE ")[0].splitlines() if line.strip()]
    shown = " ".join(line[:LONGEST] for line in lines[:2]).partition("Error: ")[2]
    return SourceRefused(f"query: {shown}", hint=IS_TEXT if NOT_FOR_TEXT.search(shown) else None)


def _of_csv(text: str, file: CsvFile) -> SourceRefused:
    if not (found := CSV_LINE.search(text)):
        return first_fault(file) or _unlike_others(file.name)
    line = int(found[1])
    if columns := CSV_COLUMNS.search(text):
        return ragged(file.name, line, int(columns[2]), int(columns[1]))
    if "unterminated quote" in text:
        return open_quote(file.name, line)
    if "Invalid unicode" in text:
        return not_text(file.name, line, file.dialect.encoding)
    if "Maximum line size" in text:
        return SourceRefused(
            f"{file.name}: a line is longer than {LONGEST_LINE:,} bytes",
            hint="look for a quote that is not closed, or state a max_line_size",
        )
    if typed := CSV_TYPE.search(text):
        return _not_of_type(file, line, typed[1], typed[2])
    return first_fault(file) or _unlike_others(f"{file.name}: line {line}")


def _unlike_others(place: str) -> SourceRefused:
    return SourceRefused(
        f"{place} is not in the form of the lines before it",
        hint="look for quotes that are not closed and for rows that were cut",
    )


def _not_of_type(file: CsvFile, line: int, column: str, type_: str) -> SourceRefused:
    """Both words are shown only when they are known not to be from the row."""
    kind = f"not a valid {type_}" if TYPE.fullmatch(type_) else "not of its column's type"
    if column not in file.columns:
        return SourceRefused(f"{file.name}: line {line}: {kind}")
    return SourceRefused(
        f"{file.name}: line {line}, column {column}: {kind}",
        hint=f"repair it, or read the column as text: types = {{'{column}': 'VARCHAR'}}",
    )


def _of_json(text: str, name: str, found: re.Match[str]) -> SourceRefused:
    unit, number = "line" if found[1] == "line" else "value", int(found[2])
    if "transform error" in text:
        return SourceRefused(
            f"{name}: {unit} {number} has a value or key that does not fit the others",
            hint=f"repair it, or state the columns: read_json('{name}', columns = {{…}})",
        )
    # For malformed JSON, DuckDB names the line after.
    return SourceRefused(
        f"{name}: {unit} {number - 1} is not JSON", hint="repair it, or write the file again"
    )


def _of_a_value(text: str) -> SourceRefused:
    found = TYPE.search(text.partition("\n\nLINE ")[0])
    what = f"is not a valid {found[1]}" if found else "does not fit what the query does with it"
    return SourceRefused(f"query: a value {what}", hint="repair the data, or change the query")
