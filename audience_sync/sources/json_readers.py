"""JSON files: whole ones, with types that hold the values of all and lose nothing of a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import duckdb
from duckdb.sqltypes import DuckDBPyType

from audience_sync.errors import SourceRefused
from audience_sync.sources.column_types import TEXT, Types, as_struct, doubtful, losing
from audience_sync.sources.csv_dialect import Options
from audience_sync.sources.file_bytes import check_json_ends, compression, edges, is_empty_json
from audience_sync.sources.file_names import Selection
from audience_sync.sources.query_files import FileReader
from audience_sync.sources.quoting import quoted
from audience_sync.sources.reader_sql import ALL_ROWS, Plan, Write, call
from audience_sync.sources.reading_errors import ReadFile, explaining

EXACT = frozenset({"BIGINT", "BOOLEAN"})
"""JSON itself says that a value is one of these."""

TEXTS = frozenset({"JSON", "UUID"})
"""What DuckDB takes texts for: as JSON they have quotes around them, as UUID no capitals."""

TIMES = frozenset({"DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"})


def json_plan(
    reader: FileReader,
    selection: Selection,
    files: Sequence[ReadFile],
    con: duckdb.DuckDBPyConnection,
) -> Plan:
    """See ``plan``."""
    for file in files:
        _check_whole(file, reader.options)
    added = {"sample_size": ALL_ROWS}
    write = partial(call, reader, selection, selection.paths)
    if "columns" not in reader.options:
        guessed = _guessed(partial(call, reader, selection), files, con, added)
        with explaining(files):
            types = _types(guessed, con, write, reader.options)
        if len(files) > 1 or types != {name: str(type_) for name, type_ in guessed.items()}:
            added = {"columns": as_struct(types)}
    return Plan(sql=write(added), files=tuple(files), selection=selection)


def _check_whole(file: ReadFile, options: Options) -> None:
    with explaining([file]):
        found = edges(file.path, compression(file.path, options.get("compression")))
    if "columns" not in options and is_empty_json(found):
        raise SourceRefused(
            f"{file.name}: there is no value in it, so its columns are not known",
            hint=f"state them: read_json('{file.name}', columns = {{'user_id': 'VARCHAR'}})",
        )
    if found.last:
        check_json_ends(file.name, found)


def _guessed(
    write: Callable[[Sequence[Path], Mapping[str, str]], str],
    files: Sequence[ReadFile],
    con: duckdb.DuckDBPyConnection,
    added: Mapping[str, str],
) -> dict[str, DuckDBPyType]:
    """Columns of every file, with types that hold the values of all.

    DuckDB finds them from 32 files, and keeps 32 MB for each meanwhile: here, one by one.
    """
    relations = []
    for file in files:
        with explaining([file]):
            relations.append(
                con.sql(f"FROM {write([file.path], {**added, 'hive_partitioning': 'false'})}")
            )
    if len(relations) > 1:
        distinct = dict.fromkeys(f"(SELECT {_nulls(relation)})" for relation in relations)
        with explaining(files):
            relations = [con.sql(" UNION ALL BY NAME ".join(distinct))]
    return dict(zip(relations[0].columns, relations[0].types, strict=True))


def _nulls(relation: duckdb.DuckDBPyRelation) -> str:
    columns = zip(relation.columns, relation.types, strict=True)
    return ", ".join(f"NULL::{_plain(type_)} AS {quoted(name)}" for name, type_ in columns)


def _plain(type_: DuckDBPyType) -> str:
    """``type_`` with text for what DuckDB only takes texts for, also inside of it."""
    if str(type_) in TEXTS:
        return TEXT
    if type_.id == "struct":
        return f"STRUCT({', '.join(f'{quoted(name)} {_plain(of)}' for name, of in _inside(type_))})"
    if type_.id == "list":
        return f"{_plain(_inside(type_)[0][1])}[]"
    return str(type_)


def _inside(type_: DuckDBPyType) -> list[tuple[str, DuckDBPyType]]:
    return [(name, inner) for name, inner in type_.children if isinstance(inner, DuckDBPyType)]


def _types(
    guessed: Mapping[str, DuckDBPyType],
    con: duckdb.DuckDBPyConnection,
    write: Write,
    options: Options,
) -> Types:
    types = {name: _plain(type_) for name, type_ in guessed.items()}
    names = [name for name in doubtful(types, options) if types[name] not in EXACT]
    texts = write({"columns": as_struct(dict.fromkeys(types, TEXT))})
    lost = list(losing(con, types, names, texts))
    ids = [name for name in types if name.casefold() == "user_id" and types[name] in TIMES]
    return types | dict.fromkeys([*lost, *ids], TEXT)
