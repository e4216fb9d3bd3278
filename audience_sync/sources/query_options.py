"""What a reader in a query states beside its files, from DuckDB's tree of the query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Node = Mapping[str, Any]

TYPING_OF_SOME = frozenset({"types", "dtypes", "column_types"})
TYPING = TYPING_OF_SOME | {"all_varchar", "auto_detect", "columns"}
"""Options of read_csv that state the types of columns."""


def option(argument: Node) -> tuple[str, str | None]:
    name, value = _named(argument)
    literal = value.get("literal")
    return name, literal["text"] if literal else None


def typed(arguments: Sequence[Node]) -> frozenset[str] | None:
    """From ``types = {'n': 'INTEGER'}``; a list of types, and other options, are of all columns."""
    names: set[str] = set()
    for name, value in map(_named, arguments):
        if (name, value.get("literal", {}).get("text", "").lower()) == ("auto_detect", "true"):
            continue
        if name in TYPING_OF_SOME and value.get("function_name") == "struct_pack":
            names |= {column["name"].lower() for column in value["arguments"]}
        elif name in TYPING:
            return None
    return frozenset(names)


def _named(argument: Node) -> tuple[str, Node]:
    """``delim := ';'`` and ``delim = ';'``."""
    name, value = argument["name"], argument["expression"]
    if not name and value.get("type") == "COMPARE_EQUAL" and "column_names" in value["left"]:
        name, value = value["left"]["column_names"][-1], value["right"]
    return name.lower(), value
