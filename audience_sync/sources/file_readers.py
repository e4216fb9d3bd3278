"""What takes the place of each reader in the query."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from audience_sync.sources.csv_dialect import check_lossless
from audience_sync.sources.csv_readers import csv_plan
from audience_sync.sources.file_format import Format
from audience_sync.sources.file_names import Selection, literal_glob, select, shown
from audience_sync.sources.json_readers import json_plan
from audience_sync.sources.query_files import FileReader
from audience_sync.sources.quoting import literal
from audience_sync.sources.reader_sql import Plan, call, check_alike
from audience_sync.sources.reading_errors import ReadFile, explaining


def plan(reader: FileReader, root: Path, con: duckdb.DuckDBPyConnection) -> Plan:
    """Look at every file of ``reader`` and write it anew.

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
        return csv_plan(reader, selection, files, con)
    if reader.format is Format.JSON:
        return json_plan(reader, selection, files, con)
    return _parquet(reader, selection, files, con)


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
        check_alike(columns)
        added["union_by_name"] = "true"
    sql = call(reader, selection, selection.paths, added)
    return Plan(sql=sql, files=tuple(files), selection=selection)
