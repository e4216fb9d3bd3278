"""Members as CSV, NDJSON or Parquet, batch by batch, into a file or standard output."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from audience_sync.cli.output import OutputFailed, StandardOutput
from audience_sync.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_A_TIME = 2_048
"""Rows that are Python objects at once."""


BinaryFile = BinaryIO | StandardOutput


class MemberWriter(Protocol):
    def __init__(self, file: BinaryFile, schema: pa.Schema) -> None: ...

    def write(self, batch: pa.RecordBatch) -> None: ...

    def close(self) -> None:
        """Write what has to stand at the end. The file stays open."""


class CsvWriter:
    """Text is quoted, also an id that is a number; a null is an empty cell without quotes."""

    def __init__(self, file: BinaryFile, schema: pa.Schema) -> None:
        self._file = file
        self._write(schema.empty_table(), header=True)

    def write(self, batch: pa.RecordBatch) -> None:
        self._write(batch, header=False)

    def _write(self, rows: pa.Table | pa.RecordBatch, *, header: bool) -> None:
        import pyarrow as pa
        from pyarrow import csv

        # By way of memory: the file's own errors come from its own write.
        text = pa.BufferOutputStream()
        csv.write_csv(rows, text, csv.WriteOptions(include_header=header))
        self._file.write(text.getvalue())

    def close(self) -> None:
        """A CSV file has no end of its own."""


class NdjsonWriter:
    """One object a line: ``{"user_id": "u42", "email": …}``."""

    def __init__(self, file: BinaryFile, schema: pa.Schema) -> None:
        self._file = file

    def write(self, batch: pa.RecordBatch) -> None:
        import orjson

        for start in range(0, batch.num_rows, ROWS_AT_A_TIME):
            rows = batch.slice(start, ROWS_AT_A_TIME).to_pylist()
            lines = [orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows]
            self._file.write(b"".join(lines))

    def close(self) -> None:
        """Nor have lines of JSON."""


class ParquetWriter:
    def __init__(self, file: BinaryFile, schema: pa.Schema) -> None:
        from pyarrow import parquet

        self._writer = parquet.ParquetWriter(file, schema, compression="zstd")

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()


WRITERS: Mapping[str, type[MemberWriter]] = {
    "csv": CsvWriter,
    "ndjson": NdjsonWriter,
    "parquet": ParquetWriter,
}


@contextmanager
def destined(path: Path | None, form: str) -> Iterator[BinaryFile]:
    """Where members go: ``path``, which is whole or untouched afterwards; else standard output.

    Nobody but its owner may read a file that is made.

    Raises:
        UsageError: the file cannot be made, or a person would be shown Parquet.
        OutputFailed: the disk is full or broken.
    """
    if path is None:
        if form == "parquet" and sys.stdout.isatty():
            raise UsageError("Parquet is nothing for a terminal", hint="--output FILE, or > FILE")
        yield StandardOutput()
    elif _is_special(path):
        with _told(path), path.open("wb") as file:
            yield file
    else:
        with _told(path):
            yield from _replaced(path)


def _is_special(path: Path) -> bool:
    """A device or a pipe, which cannot be replaced by a file."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _replaced(path: Path) -> Iterator[BinaryFile]:
    target = Path(os.path.realpath(path))
    number, made = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
        os.replace(made, target)
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        text = f"{path} cannot be written ({error.strerror})"
        raise OutputFailed(text) from None
