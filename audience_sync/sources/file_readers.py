"""A reader of the query, written anew: exact files, and nothing left for DuckDB to guess."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from audience_sync.errors import SourceRefused
from audience_sync.sources.csv_dialect import (
    DELIMITER_OPTIONS,
    NAMING_OPTIONS,
    CsvFile,
    Options,
    check_lossless,
    check_options,
    literal,
    look_at,
    unsaid,
)
from audience_sync.sources.file_bytes import (
    check_json_ends,
    check_lines_end,
    compression,
    edges,
    is_empty_json,
)
from audience_sync.sources.file_format import Format
from audience_sync.sources.file_names import Selection, literal_glob, select, shown
from audience_sync.sources.query_files import FileReader
from audience_sync.sources.reading_errors import ReadFile, explaining


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """``sql`` takes the reader's place in the query and reads ``files``."""

    sql: str
    files: tuple[ReadFile, ...]
    selection: Selection


def plan(reader: FileReader, root: Path, con: duckdb.DuckDBPyConnection, *, sample: int) -> Plan:
    """Look at every file of ``reader`` and write it anew.

    Args:
        sample: rows from which types are found; -1 for all.

    Raises:
        SourceRefused: a file is missing, cut, or not of the form the query states.
    """
    check_lossless(reader.options)
    with explaining(()):
        selection = select(root, reader.names)
    files = [
        ReadFile(path=path, name=shown(path, root), format=reader.format)
        for path in selection.paths
    ]
    if reader.format is Format.CSV:
        return _csv(reader, selection, files, sample)
    if reader.format is Format.JSON:
        return _json(reader, selection, files, sample, con)
    return _parquet(reader, selection, files, con)


TYPING_OPTIONS = frozenset({"types", "dtypes", "column_types", "all_varchar", "auto_detect"})
TEXT = "'VARCHAR'"


def _csv(reader: FileReader, selection: Selection, files: Sequence[ReadFile], sample: int) -> Plan:
    options = reader.options
    check_options(options)
    found = [_whole_csv(file, options) for file in files]
    seen = tuple(replace(file, csv=csv) for file, csv in zip(files, found, strict=True))
    named = any(name in options for name in NAMING_OPTIONS)
    alike = not named and "union_by_name" not in options
    if alike:
        _check_alike([(file.name, file.columns) for file in found])
    _check_one_delimiter(found, options)
    if all(file.empty for file in found) and not named:
        columns = list(dict.fromkeys(column for file in found for column in file.columns))
        return Plan(sql=_no_rows(reader, columns), files=seen, selection=selection)
    added = dict(unsaid(found[0].dialect, options)) | {"sample_size": str(sample)}
    if not named and not TYPING_OPTIONS & options.keys():
        added |= _ids_as_text(found)
    if alike and len(files) > 1:
        added["union_by_name"] = "true"
    sql = _call(reader, selection, selection.paths, added)
    return Plan(sql=sql, files=seen, selection=selection)


def _ids_as_text(found: Sequence[CsvFile]) -> dict[str, str]:
    """Ids are text as it stands there: a guessed type would read ``0x10`` as 16."""
    ids = {column for file in found for column in file.columns if column.casefold() == "user_id"}
    if not ids or any(ids.isdisjoint(file.columns) for file in found):
        return {}
    return {"types": f"{{{', '.join(f'{literal(column)}: {TEXT}' for column in sorted(ids))}}}"}


def _whole_csv(file: ReadFile, options: Options) -> CsvFile:
    with explaining([file]):
        found = look_at(file.path, file.name, options)
        ends = edges(file.path, found.dialect.packed)
    check_lines_end(file.name, ends, encoding=found.dialect.encoding)
    return found


def _json(
    reader: FileReader,
    selection: Selection,
    files: Sequence[ReadFile],
    sample: int,
    con: duckdb.DuckDBPyConnection,
) -> Plan:
    for file in files:
        _check_whole_json(file, reader.options)
    added = {"sample_size": str(sample)}
    if len(files) > 1 and "columns" not in reader.options:
        columns = _columns_of_all(reader, selection, files, sample, con)
        named = (f"{literal(name)}: {literal(kind)}" for name, kind in columns)
        added = {"columns": f"{{{', '.join(named)}}}"}
    sql = _call(reader, selection, selection.paths, added)
    return Plan(sql=sql, files=tuple(files), selection=selection)


def _check_whole_json(file: ReadFile, options: Options) -> None:
    with explaining([file]):
        found = edges(file.path, compression(file.path, options.get("compression")))
    if "columns" not in options and is_empty_json(found):
        raise SourceRefused(
            f"{file.name}: there is no value in it, so its columns are not known",
            hint=f"state them: read_json('{file.name}', columns = {{'user_id': 'VARCHAR'}})",
        )
    if found.last:
        check_json_ends(file.name, found)


def _columns_of_all(
    reader: FileReader,
    selection: Selection,
    files: Sequence[ReadFile],
    sample: int,
    con: duckdb.DuckDBPyConnection,
) -> list[tuple[str, str]]:
    """Columns of every file, with types that hold the values of all.

    DuckDB finds them from 32 files, and keeps 32 MB for each meanwhile: here, one by one.
    """
    added = {"sample_size": str(sample), "hive_partitioning": "false"}
    shapes = []
    for file in files:
        with explaining([file]):
            found = con.sql(f"FROM {_call(reader, selection, [file.path], dict(added))}")
            columns = zip(found.columns, found.types, strict=True)
            shapes.append(", ".join(f"NULL::{kind} AS {_quoted(name)}" for name, kind in columns))
    distinct = dict.fromkeys(f"(SELECT {shape})" for shape in shapes)
    with explaining(files):
        united = con.sql(" UNION ALL BY NAME ".join(distinct))
        return [(name, str(kind)) for name, kind in zip(united.columns, united.types, strict=True)]


def _parquet(
    reader: FileReader,
    selection: Selection,
    files: Sequence[ReadFile],
    con: duckdb.DuckDBPyConnection,
) -> Plan:
    columns = []
    for file in files:
        with explaining([file]):
            relation = con.sql(f"FROM read_parquet({literal(literal_glob(file.path))})")
            columns.append((file.name, tuple(relation.columns)))
    added = {}
    if "union_by_name" not in reader.options and len(files) > 1:
        _check_alike(columns)
        added["union_by_name"] = "true"
    sql = _call(reader, selection, selection.paths, added)
    return Plan(sql=sql, files=tuple(files), selection=selection)


def _check_alike(files: Sequence[tuple[str, Sequence[str]]]) -> None:
    """DuckDB leaves out columns that the first file lacks, and fills those others lack."""
    (first, columns), *others = files
    for name, theirs in others:
        different = {c.lower() for c in columns} ^ {c.lower() for c in theirs}
        if columns and theirs and different:
            raise SourceRefused(
                f"{name}: does not have the columns of {first} ({', '.join(sorted(different))})",
                hint="read them with union_by_name = true to have NULL where a column is missing",
            )


def _check_one_delimiter(files: Sequence[CsvFile], options: Options) -> None:
    stated = any(name in options for name in DELIMITER_OPTIONS)
    for file in files:
        if not stated and file.dialect.delimiter != files[0].dialect.delimiter:
            raise SourceRefused(
                f"{file.name}: is not separated like {files[0].name}",
                hint="read them one by one, with UNION ALL BY NAME between",
            )


def _call(
    reader: FileReader, selection: Selection, paths: Sequence[Path], added: dict[str, str]
) -> str:
    """Absolute paths under a folder like ``day=1`` would get a column ``day``: only where asked."""
    if not any("=" in shown(path, selection.root) for path in paths):
        added["hive_partitioning"] = "false"
    files = ", ".join(literal(literal_glob(path)) for path in paths)
    options = "".join(
        f", {name} = {value}" for name, value in added.items() if name not in reader.options
    )
    alias = _alias(reader) if reader.bare else ""
    return f"{reader.head}[{files}]{options}{reader.tail}{alias}"


def _no_rows(reader: FileReader, columns: Sequence[str]) -> str:
    """A NULL is comparable with everything, where text (DuckDB's type for no rows) is not."""
    return f"(SELECT {', '.join(_nulls(columns))} WHERE false){_alias(reader)}"


def _nulls(columns: Sequence[str]) -> Iterator[str]:
    for number, column in enumerate(columns):
        yield f"NULL AS {_quoted(column or f'column{number}')}"


def _alias(reader: FileReader) -> str:
    return f" AS {_quoted(reader.alias)}" if reader.alias else ""


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
