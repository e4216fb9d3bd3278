"""One DuckDB session: statements one after another, Arrow in and out, and errors without rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import duckdb
import pyarrow as pa

from audience_sync.errors import AudienceSyncError, SourceFailed
from audience_sync.pipeline.ports.reading import Batches

CHUNK_ROWS = 65_536

STREAM_ERRORS = (pa.ArrowException, OSError)
"""What Arrow makes of DuckDB's errors while a result is streamed."""

NO_ROOM = ("Out of Memory Error", "IO Error")
"""How the texts of such errors begin; the engine's only files are what it spills."""


class Session:
    """Every statement is finished before the next (DuckDB 2.0)."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con
        self.run("SET TimeZone = 'UTC'")

    def run(self, sql: str) -> None:
        self._con.execute(sql).fetchall()

    def row(self, sql: str) -> tuple[int, ...]:
        return tuple(int(value or 0) for value in self._con.execute(sql).fetchall()[0])

    def rows(self, sql: str) -> list[tuple[int, ...]]:
        return list(self._con.execute(sql).fetchall())

    @contextmanager
    def registered(self, name: str, batches: Batches, schema: pa.Schema) -> Iterator[None]:
        """``batches`` as a table that can be scanned once. Their own exception comes back."""
        kept: list[BaseException] = []

        def guarded() -> Iterator[pa.RecordBatch]:
            try:
                for batch in batches:
                    # Arrow hands over batches of another shape unseen, and DuckDB crashes.
                    if not batch.schema.equals(schema):
                        raise SourceFailed(f"{name}: rows of another shape than promised")
                    yield batch
            except GeneratorExit:
                raise  # DuckDB gave up for a reason of its own
            except BaseException as error:
                kept.append(error)
                raise

        self._con.register(name, pa.RecordBatchReader.from_batches(schema, guarded()))
        try:
            yield
        except duckdb.Error as error:
            # DuckDB wraps what the reader raised, traceback and text included.
            raise (kept[0] if kept else error) from None
        finally:
            self._con.unregister(name)

    def stream(self, sql: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows of a query, at most ``CHUNK_ROWS`` at a time; close it to read no further."""
        with (
            own_errors(duckdb.Error, *STREAM_ERRORS),
            closing(self._con.sql(sql).to_arrow_reader(CHUNK_ROWS)) as reader,
        ):
            for batch in reader:
                for start in range(0, batch.num_rows, CHUNK_ROWS):
                    yield batch.slice(start, CHUNK_ROWS).cast(schema)


@contextmanager
def own_errors(*kinds: type[Exception]) -> Iterator[None]:
    """DuckDB's texts can hold rows; only their class is told."""
    try:
        yield
    except AudienceSyncError:
        raise
    except kinds as error:
        raise _own(error) from None


def _own(error: Exception) -> SourceFailed:
    no_room = isinstance(error, duckdb.OutOfMemoryException | duckdb.IOException)
    if no_room or str(error).startswith(NO_ROOM):
        return SourceFailed(
            "the comparison does not fit in memory and spill space",
            hint="raise [engine] memory_limit, or give [engine] spill a larger disk",
        )
    return SourceFailed(f"the comparison failed in DuckDB ({type(error).__name__})")
