"""What kind of file a name stands for."""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePosixPath


class Format(StrEnum):
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


FORMATS = {
    ".csv": Format.CSV,
    ".tsv": Format.CSV,
    ".txt": Format.CSV,
    ".json": Format.JSON,
    ".ndjson": Format.JSON,
    ".jsonl": Format.JSON,
    ".parquet": Format.PARQUET,
}
PACKED = (".gz", ".zst")


def format_of(name: str) -> Format | None:
    """By the ending, as DuckDB does; ``None``: not a file that can be read by its name alone."""
    path = PurePosixPath(name.lower())
    return FORMATS.get(PurePosixPath(path.stem).suffix if path.suffix in PACKED else path.suffix)


def base_name(name: str) -> str:
    """What DuckDB calls the table: ``orders`` for ``data/orders.csv.gz``."""
    path = PurePosixPath(name)
    return PurePosixPath(path.stem).stem if path.suffix.lower() in PACKED else path.stem
