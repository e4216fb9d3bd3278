"""Which files a query reads, and where its text names them.

The query is parsed by DuckDB and its tree is checked against what is allowed, so that nothing
reaches DuckDB's own opening of files: its CSV sniffer skips rows that it cannot read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from audience_sync.errors import SourceRefused
from audience_sync.sources.file_format import FORMATS, Format, base_name, format_of
from audience_sync.sources.query_options import Node, option, typed
from audience_sync.sources.query_text import call_at, quoted_at

ONE_SELECT = "query: must be one SELECT that only reads"
WHICH_ARE_NOT = "INSERT, UPDATE, DELETE, COPY, SET, PRAGMA and a second statement are never run"


READERS = {
    "read_csv": Format.CSV,
    "read_csv_auto": Format.CSV,
    "read_json": Format.JSON,
    "read_json_auto": Format.JSON,
    "read_ndjson": Format.JSON,
    "read_ndjson_auto": Format.JSON,
    "read_parquet": Format.PARQUET,
    "parquet_scan": Format.PARQUET,
}
READER_OF = {Format.CSV: "read_csv", Format.JSON: "read_json", Format.PARQUET: "read_parquet"}
ROW_MAKERS = frozenset({"generate_series", "json_each", "json_tree", "range", "repeat", "unnest"})
READING_NODES = frozenset({"CTE_NODE", "RECURSIVE_CTE_NODE", "SELECT_NODE", "SET_OPERATION_NODE"})


@dataclass(frozen=True, kw_only=True, slots=True)
class FileReader:
    """``query[start:end]``: a file's name that stands for a table, or a call of a reader.

    ``head`` and ``tail`` are what stands before and after the files when it is written anew as
    a call. ``options`` are those stated in the query, as text; ``None``: not a literal.
    """

    start: int
    end: int
    head: str
    tail: str
    format: Format
    names: tuple[str, ...]
    options: Mapping[str, str | None]
    typed: frozenset[str] | None
    """Columns, in lower case, whose types the query states; ``None``: all of them."""
    bare: bool
    alias: str | None
    """The name under which the query knows it, where the query itself gives it none."""


def files_of(query: str, con: duckdb.DuckDBPyConnection) -> list[FileReader]:
    """The readers in ``query``, in the order of the text. ``$now`` may be its only parameter.

    Raises:
        SourceRefused: not one SELECT, or it reads something other than files named in it.
    """
    statement = _parsed(query, con)
    nodes = list(_nodes(statement["node"]))
    ctes = _ctes(nodes)
    for node in nodes:
        _check_only_reads(node)
    readers = {reader.start: reader for node in nodes for reader in _reader(node, query, ctes)}
    return [readers[start] for start in sorted(readers)]


def _parsed(query: str, con: duckdb.DuckDBPyConnection) -> Node:
    (found,) = con.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchall()
    tree: dict[str, Any] = json.loads(found[0])
    if tree["error"] and tree["error_type"] == "parser":
        line = query.encode()[: int(tree.get("position", 0))].count(b"\n") + 1
        raise SourceRefused(f"query, line {line}: {tree['error_message'].splitlines()[0]}")
    if tree["error"] or len(tree["statements"]) != 1:
        raise SourceRefused(ONE_SELECT, hint=WHICH_ARE_NOT)
    statement: dict[str, Any] = tree["statements"][0]
    unknown = {parameter["key"] for parameter in statement["named_param_map"]} - {"now"}
    if unknown:
        raise SourceRefused(f"query: only :now is filled in (found {', '.join(sorted(unknown))})")
    return statement


def _nodes(node: Any) -> Iterator[Node]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _nodes(value)


def _ctes(nodes: Sequence[Node]) -> frozenset[str]:
    names = {item["key"] for node in nodes for item in node.get("cte_map", {}).get("map", ())}
    for name in names:
        if format_of(name):
            raise SourceRefused(
                f'query: WITH "{name}" has the name of a file', hint="give it another name"
            )
    return frozenset(name.lower() for name in names)


def _check_only_reads(node: Node) -> None:
    """A WITH may hold INSERT, DELETE, UPDATE and COPY: their nodes are none of these."""
    kind = node.get("type", "")
    if "class" in node or not isinstance(kind, str):
        return
    if kind == "SHOW_REF" or (kind.endswith("_NODE") and kind not in READING_NODES):
        raise SourceRefused(ONE_SELECT, hint=WHICH_ARE_NOT)


def _reader(node: Node, query: str, ctes: frozenset[str]) -> Iterator[FileReader]:
    if "class" in node:
        return
    if node.get("type") == "BASE_TABLE" and ".".join(_path(node)).lower() not in ctes:
        yield _bare(node, query)
    if node.get("type") == "TABLE_FUNCTION":
        name = node["function"].get("function_name", "").lower()
        if name in READERS:
            yield _call(node, query, READERS[name])
        elif name not in ROW_MAKERS:
            raise SourceRefused(
                f"query: {name}() cannot be used in a source",
                hint="name a file (FROM 'orders.csv'), or use read_csv, read_json, read_parquet",
            )


def _bare(node: Node, query: str) -> FileReader:
    name = ".".join(_path(node))
    format_ = format_of(name)
    if format_ is None:
        raise SourceRefused(
            f"query: there is no table {name}",
            hint="name a file with its ending, as in FROM 'orders.csv'; "
            f"endings that can be read: {', '.join(FORMATS)} (also .gz, .zst)",
        )
    start, end = _named_at(node, query, name)
    return FileReader(
        start=start,
        end=end,
        head=READER_OF[format_] + "(",
        tail=")",
        format=format_,
        names=(name,),
        options={},
        typed=frozenset(),
        bare=True,
        alias=None if node["alias"] else base_name(name),
    )


def _call(node: Node, query: str, format_: Format) -> FileReader:
    function, arguments = node["function"]["function_name"], node["function"]["arguments"]
    files = arguments[0]["expression"] if arguments and not arguments[0]["name"] else {}
    start, end = _call_at(node, query, function)
    first, last = _located(files, query) if files else (start, start)
    if not start < first <= last < end:
        raise SourceRefused(f"query: {function}() must name its files first")
    return FileReader(
        start=start,
        end=end,
        head=query[start:first],
        tail=query[last:end],
        format=format_,
        names=_literals(files, function),
        options=dict(map(option, arguments[1:])),
        typed=typed(arguments[1:]),
        bare=False,
        alias=None if node["alias"] else function,
    )


def _literals(files: Node, function: str) -> tuple[str, ...]:
    items = [files]
    if files.get("function_name") == "list_value":
        items = [argument["expression"] for argument in files["arguments"]]
    names = tuple(item["literal"]["text"] for item in items if _is_text(item))
    if not names or len(names) != len(items):
        raise SourceRefused(
            f"query: {function}() must name its files as literals, so that they can be checked",
            hint=f"{function}('orders.csv') or {function}(['a.csv', 'b.csv'])",
        )
    return names


def _is_text(node: Node) -> bool:
    return bool(node.get("literal", {}).get("kind") == "STRING")


def _path(node: Node) -> Sequence[str]:
    path: list[str] = node["qualified_name"]["path"]
    return path


def _located(node: Node, query: str) -> tuple[int, int]:
    """Start and end in characters; the parser counts bytes, and not every node has a place."""
    encoded, start = query.encode(), node["query_location"]
    if start >= len(encoded):
        raise SourceRefused(
            "query: a file is named where it cannot be checked", hint="write SELECT … FROM 'file'"
        )
    end = start + node["query_location_length"]
    return len(encoded[:start].decode()), len(encoded[:end].decode())


def _named_at(node: Node, query: str, name: str) -> tuple[int, int]:
    """A table's place includes its alias."""
    place = quoted_at(query, name, *_located(node, query))
    if place is None:
        raise SourceRefused(
            f"query: {name} is named where it cannot be checked", hint=f"FROM '{name}'"
        )
    return place


def _call_at(node: Node, query: str, function: str) -> tuple[int, int]:
    """A call's place includes its alias, too."""
    place = call_at(query, function, *_located(node, query))
    if place is None:
        raise SourceRefused(f"query: {function}() is called where it cannot be checked")
    return place
