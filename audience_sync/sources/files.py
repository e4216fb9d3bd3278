"""SQL by DuckDB over CSV, JSON and Parquet files under one folder (port ``Source``).

A read that is not whole never looks like a smaller audience: the files are looked at before
DuckDB opens them, DuckDB is left nothing to guess, and they must be the same afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from audience_sync.errors import SourceFailed
from audience_sync.sources.file_names import Selection
from audience_sync.sources.file_readers import plan
from audience_sync.sources.freshness import Freshness, check_fresh, newest_of
from audience_sync.sources.query_files import files_of
from audience_sync.sources.query_text import fill_now
from audience_sync.sources.reading_errors import ReadFile, explaining

BATCH_ROWS = 65_536
Connect = Callable[[], duckdb.DuckDBPyConnection]


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
        freshness: without a query, of every name in a query the newest file counts.
    """

    def __init__(self, *, root: Path, connect: Connect, freshness: Freshness | None = None) -> None:
        self._root = root.absolute()
        self._connect = connect
        self._freshness = freshness

    @contextmanager
    def read(self, query: str, cycle_time: datetime) -> Iterator[pa.RecordBatchReader]:
        """See ``Source.read``. Batches have up to 65,536 rows and are read as they are asked for.

        Raises:
            SourceRefused: the query, or a file, cannot be used.
            SourceFailed: the read did not finish, the data is stale, or a file changed meanwhile.
                Both also come from the reader's iteration.
            SourceReplaced: each file that changed was replaced by another one, by a rename.
        """
        freshness = self._freshness
        if freshness and freshness.query:
            newest = newest_of(partial(self._rows, freshness.query, cycle_time))
            check_fresh(newest, cycle_time, freshness.max_age)
        with self._rows(query, cycle_time) as rows:
            yield rows

    @contextmanager
    def _rows(self, query: str, cycle_time: datetime) -> Iterator[pa.RecordBatchReader]:
        with self._ready(query, cycle_time) as reading:
            if self._freshness and not self._freshness.query:
                _check_files(reading.selections, cycle_time, self._freshness.max_age)
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

    @contextmanager
    def _ready(self, query: str, cycle_time: datetime) -> Iterator[Reading]:
        con = self._connect()
        try:
            yield self._prepare(con, query, cycle_time)
        finally:
            con.close()

    def _prepare(self, con: duckdb.DuckDBPyConnection, query: str, cycle_time: datetime) -> Reading:
        text, bound = fill_now(query, "$now")
        with explaining(()):
            con.execute("SET timezone = 'UTC'")
            # Else a table that is nowhere to be found may be a variable of this program.
            con.execute("SET python_enable_replacements = false")
            readers = files_of(text, con)
        plans = [plan(reader, self._root, con) for reader in readers]
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


def _check_files(selections: Sequence[Selection], cycle_time: datetime, max_age: timedelta) -> None:
    for selection in selections:
        try:
            check_fresh(selection.written_at, cycle_time, max_age)
        except SourceFailed as error:
            raise SourceFailed(f"{', '.join(selection.names)}: {error}", hint=error.hint) from None


def _replaced(text: str, places: Sequence[tuple[int, int]], parts: Sequence[str]) -> str:
    for (start, end), part in sorted(zip(places, parts, strict=True), reverse=True):
        text = text[:start] + part + text[end:]
    return text
