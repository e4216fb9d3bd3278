"""A reader of the query, written anew: exact files, and nothing left for DuckDB to guess."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from audience_sync.errors import SourceRefused
from audience_sync.sources.file_names import Selection, literal_glob, shown
from audience_sync.sources.query_files import FileReader
from audience_sync.sources.quoting import literal, quoted
from audience_sync.sources.reading_errors import ReadFile

Write = Callable[[Mapping[str, str]], str]
"""A reader as SQL, with these options added."""

ALL_ROWS = "-1"
"""Types are found from every row, a second pass (0.4 s for 1 M rows of 4 columns): from a sample,
a column of whole numbers would silently round the 1.5 that comes later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """``sql`` takes the reader's place in the query and reads ``files``."""

    sql: str
    files: tuple[ReadFile, ...]
    selection: Selection


def call(
    reader: FileReader, selection: Selection, paths: Sequence[Path], added: Mapping[str, str]
) -> str:
    """The call of ``reader`` for ``paths``, with those options of ``added`` that it leaves open.

    Absolute paths under a folder like ``day=1`` would get a column ``day``: only where asked.
    """
    if not any("=" in shown(path, selection.root) for path in paths):
        added = {**added, "hive_partitioning": "false"}
    files = ", ".join(literal(literal_glob(path)) for path in paths)
    options = "".join(
        f", {name} = {value}" for name, value in added.items() if name not in reader.options
    )
    return f"{reader.head}[{files}]{options}{reader.tail}{_alias(reader) if reader.bare else ''}"


def no_rows(reader: FileReader, columns: Sequence[str]) -> str:
    """A NULL is comparable with everything, where text (DuckDB's type for no rows) is not."""
    return f"(SELECT {', '.join(_nulls(columns))} WHERE false){_alias(reader)}"


def _alias(reader: FileReader) -> str:
    return f" AS {quoted(reader.alias)}" if reader.alias else ""


def _nulls(columns: Sequence[str]) -> Iterator[str]:
    for number, column in enumerate(columns):
        yield f"NULL AS {quoted(column or f'column{number}')}"


def check_alike(files: Sequence[tuple[str, Sequence[str]]]) -> None:
    """DuckDB leaves out columns that the first file lacks, and fills those others lack.

    Raises:
        SourceRefused: a file, of a name and columns, has not the columns of the first.
    """
    (first, columns), *others = files
    for name, theirs in others:
        different = {c.lower() for c in columns} ^ {c.lower() for c in theirs}
        if columns and theirs and different:
            raise SourceRefused(
                f"{name}: does not have the columns of {first} ({', '.join(sorted(different))})",
                hint="read them with union_by_name = true to have NULL where a column is missing",
            )
