"""CSV files: strict values for all that the query leaves open, and types that lose nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import duckdb

from audience_sync.errors import SourceRefused
from audience_sync.sources.column_types import TEXT, as_struct, doubtful, losing
from audience_sync.sources.csv_dialect import (
    DELIMITER_OPTIONS,
    NAMING_OPTIONS,
    CsvFile,
    Options,
    check_options,
    look_at,
    unsaid,
)
from audience_sync.sources.csv_faults import check_header, first_fault
from audience_sync.sources.file_bytes import check_lines_end, edges
from audience_sync.sources.file_names import Selection
from audience_sync.sources.query_files import FileReader
from audience_sync.sources.reader_sql import ALL_ROWS, Plan, Write, call, check_alike, no_rows
from audience_sync.sources.reading_errors import ReadFile, explaining


def csv_plan(
    reader: FileReader,
    selection: Selection,
    files: Sequence[ReadFile],
    con: duckdb.DuckDBPyConnection,
) -> Plan:
    """See ``plan``."""
    options = reader.options
    check_options(options)
    found = [_whole(file, options) for file in files]
    seen = tuple(replace(file, csv=csv) for file, csv in zip(files, found, strict=True))
    named = any(name in options for name in NAMING_OPTIONS)
    alike = not named and "union_by_name" not in options
    if alike:
        check_alike([(file.name, file.columns) for file in found])
    _check_one_delimiter(found, options)
    if all(file.empty for file in found) and not named:
        columns = list(dict.fromkeys(column for file in found for column in file.columns))
        return Plan(sql=no_rows(reader, columns), files=seen, selection=selection)
    added = dict(unsaid(found[0].dialect, options)) | {"sample_size": ALL_ROWS}
    if alike and len(files) > 1:
        added["union_by_name"] = "true"
    write = partial(call, reader, selection, selection.paths)
    if reader.typed is not None:
        with explaining(seen):
            added |= _types(reader, selection, con, write, added)
    return Plan(sql=write(added), files=seen, selection=selection)


def _whole(file: ReadFile, options: Options) -> CsvFile:
    with explaining([file]):
        found = look_at(file.path, file.name, options)
        # DuckDB takes a header line with an open quote for a header of many lines, and no rows.
        fault = first_fault(found) if found.unclear else None
        ends = edges(file.path, found.dialect.packed)
    if fault is not None:
        raise fault
    if found.has_header and "header" not in options:
        check_header(file.name, found.columns)
    check_lines_end(file.name, ends, encoding=found.dialect.encoding)
    return found


def _types(
    reader: FileReader,
    selection: Selection,
    con: duckdb.DuckDBPyConnection,
    write: Write,
    added: Mapping[str, str],
) -> dict[str, str]:
    """Options that state the type of every column of the files; ids are always text."""
    guessed = con.sql(f"FROM {write(added)}")
    outside = _not_in_files(reader, selection)
    types = {
        name: str(type_)
        for name, type_ in zip(guessed.columns, guessed.types, strict=True)
        if name not in outside
    }
    stated = reader.typed or frozenset()
    names = [name for name in doubtful(types, reader.options) if name.casefold() not in stated]
    lost = list(losing(con, types, names, write({**added, "all_varchar": "true"})))
    if stated:
        _refuse(reader, types, lost)
        return {}
    ids = [name for name in types if name.casefold() == "user_id"]
    said = {"types": as_struct(types | dict.fromkeys([*lost, *ids], TEXT))}
    # Where all is said there is nothing to find in a second look at every row.
    return said | ({"sample_size": "1"} if len(types) == len(guessed.columns) else {})


def _refuse(reader: FileReader, types: Mapping[str, str], lost: Sequence[str]) -> None:
    """The query states some types, so that no other can be given from here."""
    for name in lost:
        raise SourceRefused(
            f"{', '.join(reader.names)}: column {name}: taken for {types[name]}, "
            "some values would change",
            hint=f"state its type too: types = {{…, '{name}': 'VARCHAR'}}",
        )


def _not_in_files(reader: FileReader, selection: Selection) -> set[str]:
    """Columns that DuckDB adds: of folders like ``day=1``, and the file's name where asked for."""
    folders = {part for path in selection.paths for part in path.parent.parts if "=" in part}
    added = {folder.partition("=")[0] for folder in folders}
    if "filename" in reader.options:
        added |= {"filename", reader.options["filename"] or ""}
    return added


def _check_one_delimiter(files: Sequence[CsvFile], options: Options) -> None:
    stated = any(name in options for name in DELIMITER_OPTIONS)
    for file in files:
        if not stated and file.dialect.delimiter != files[0].dialect.delimiter:
            raise SourceRefused(
                f"{file.name}: is not separated like {files[0].name}",
                hint="read them one by one, with UNION ALL BY NAME between",
            )
