"""SQL by DuckDB over CSV, JSON and Parquet files under one folder (port ``Source``).

A read that is not whole never looks like a smaller audience: the files are looked at before
DuckDB opens them, DuckDB is left nothing to guess, and they must be the same afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from audience_sync.sources.file_names import Selection
from audience_sync.sources.file_readers import plan
from audience_sync.sources.query_files import files_of
from audience_sync.sources.query_text import fill_now
from audience_sync.sources.reading_errors import ReadFile, explaining

BATCH_ROWS = 65_536
ALL_ROWS = -1
"""Types are found from every row, a second pass (0.4 s for 1 M rows of 4 columns): from a sample,
a column of whole numbers would silently round the 1.5 that comes later."""
SAMPLE_ROWS = 20_480


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One query, ready to run in ``con``."""

    con: duckdb.DuckDBPyConnection
    sql: str
    parameters: dict[str, Any] | None
    files: tuple[ReadFile, ...]
    selections: tuple[Selection, ...]

    @contextmanager
    def explaining(self) -> Iterator[None]:
        with explaining(self.files, self.selections):
            yield

    def relation(self) -> duckdb.DuckDBPyRelation:
        return self.con.sql(self.sql, params=self.parameters)


class FilesSource:
    """Reads files under ``root``.

    Args:
        root: the folder to which names in queries are relative.
        connect: gives a new session of the process's DuckDB instance; closed after the read.
    """

    def __init__(self, *, root: Path, connect: Callable[[], duckdb.DuckDBPyConnection]) -> None:
        self._root = root.absolute()
        self._connect = connect

    @contextmanager
    def read(self, query: str, cycle_time: datetime) -> Iterator[pa.RecordBatchReader]:
        """See ``Source.read``. Batches have up to 65,536 rows and are read as they are asked for.

        Raises:
            SourceRefused: the query, or a file, cannot be used.
            SourceFailed: the read did not finish, or a file changed meanwhile. Both also come
                from the reader's iteration.
        """
        with self._ready(query, cycle_time, sample=ALL_ROWS) as reading:
            with reading.explaining():
                reader = reading.relation().to_arrow_reader(BATCH_ROWS)
            # A stream that nobody reads to its end would hold its session for ever.
            with (
                closing(reader),
                closing(
                    pa.RecordBatchReader.from_batches(reader.schema, _batches(reader, reading))
                ) as rows,
            ):
                yield rows

    def describe(self, query: str, cycle_time: datetime) -> list[tuple[str, str]]:
        """The query's columns with DuckDB's names of their types, from the first rows of files.

        Raises:
            SourceRefused, SourceFailed: as ``read``.
        """
        with self._ready(query, cycle_time, sample=SAMPLE_ROWS) as reading, reading.explaining():
            relation = reading.relation()
            return [
                (name, str(kind))
                for name, kind in zip(relation.columns, relation.types, strict=True)
            ]

    @contextmanager
    def _ready(self, query: str, cycle_time: datetime, *, sample: int) -> Iterator[Reading]:
        con = self._connect()
        try:
            yield self._prepare(con, query, cycle_time, sample)
        finally:
            con.close()

    def _prepare(
        self, con: duckdb.DuckDBPyConnection, query: str, cycle_time: datetime, sample: int
    ) -> Reading:
        text, bound = fill_now(query, "$now")
        with explaining(()):
            con.execute("SET timezone = 'UTC'")
            # Else a table that is nowhere to be found may be a variable of this program.
            con.execute("SET python_enable_replacements = false")
            readers = files_of(text, con)
        plans = [plan(reader, self._root, con, sample=sample) for reader in readers]
        places = [(reader.start, reader.end) for reader in readers]
        return Reading(
            con=con,
            sql=_replaced(text, places, [part.sql for part in plans]),
            parameters={"now": cycle_time} if bound else None,
            files=tuple({file.path: file for part in plans for file in part.files}.values()),
            selections=tuple(part.selection for part in plans),
        )


def _batches(reader: pa.RecordBatchReader, reading: Reading) -> Iterator[pa.RecordBatch]:
    """Ends only when every row was given and the files are still what they were."""
    while True:
        with reading.explaining():
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                break
        yield batch
    for selection in reading.selections:
        if change := selection.change():
            raise change


def _replaced(text: str, places: Sequence[tuple[int, int]], parts: Sequence[str]) -> str:
    for (start, end), part in sorted(zip(places, parts, strict=True), reverse=True):
        text = text[:start] + part + text[end:]
    return text
