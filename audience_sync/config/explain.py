"""What pydantic found, said to a person: at its place, without values that may be secret."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from audience_sync.config.crisp import CrispDestination
from audience_sync.config.draft import Draft
from audience_sync.config.model import (
    AudienceTable,
    ComputedTraitTable,
    Engine,
    FileFreshness,
    FilesSource,
    GuardTable,
    NdjsonDestination,
    ScheduleTable,
    SegmentDestination,
    SqlFreshness,
    SqlSource,
    Store,
    Written,
)
from audience_sync.config.places import Findings, KeyPath, listed, quoted
from audience_sync.config.status import StatusTable
from audience_sync.config.table import Table

HIDDEN = frozenset(
    {"write_key", "api_key", "token", "url", "endpoint", "query", "integrations", "connect_args"}
)
"""Keys whose value is never repeated: it is a secret, may hold one, or is too long."""

TYPES: Mapping[str, Mapping[str, type[Table]]] = {
    "sources": {"files": FilesSource, "sql": SqlSource},
    "destinations": {
        "segment": SegmentDestination,
        "crisp": CrispDestination,
        "ndjson": NdjsonDestination,
    },
}
FRESHNESS: Mapping[str, type[Table]] = {"files": FileFreshness, "sql": SqlFreshness}
TABLES: Mapping[str, type[Table]] = {
    "store": Store,
    "schedule": ScheduleTable,
    "guard": GuardTable,
    "engine": Engine,
    "status": StatusTable,
}
EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "bool_type": "true or false",
    "list_type": "an array",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}
LONGEST_GUESSED = 64


def explain(error: ValidationError, draft: Draft, findings: Findings, *, complete: bool) -> None:
    """Report each error at its place.

    Args:
        complete: every file could be read; otherwise what is missing may stand in another.
    """
    for detail in error.errors(include_url=False, include_input=False):
        path = _path(detail)
        missing = detail["type"] in ("missing", "union_tag_not_found")
        if draft.fails(path) or (missing and not complete):
            continue
        text, hint = _sentence(detail, path, draft)
        findings.problem(draft.place(path), text, hint)


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """The known name that is nearest to ``name``, as a hint; else all that are known."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1) if len(name) <= LONGEST_GUESSED else []
    if near:
        return f"did you mean {quoted(near[0])}?"
    return f"known: {listed(known)}" if known else None


def type_name(value: Any) -> str:
    """What TOML calls the type of ``value``."""
    names = (
        (bool, "a boolean"),
        (str, "a string"),
        (int, "an integer"),
        (float, "a float"),
        (list, "an array"),
        (dict, "a table"),
        (datetime, "a date-time"),
        (date, "a date"),
        (time, "a time"),
    )
    return next((name for kind, name in names if isinstance(value, kind)), "something else")


def _path(detail: ErrorDetails) -> KeyPath:
    """The key path of an error: pydantic's, without its own marks, to the type where that is it."""
    path = detail["loc"]
    if path[-1:] == ("[key]",):
        path = path[:-1]
    if len(path) > 2 and path[2] in TYPES.get(str(path[0]), ()):
        path = (*path[:2], *path[3:])
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path = (*path, "type")
    return path


def _sentence(detail: ErrorDetails, path: KeyPath, draft: Draft) -> tuple[str, str | None]:
    kind = detail["type"]
    value = draft.value(path)
    if kind == "extra_forbidden":
        return _unknown_key(detail["loc"])
    if path[-1:] == ("type",) and len(path) == 3:
        return _unknown_type(path, draft)
    if kind == "missing":
        return "is missing", None
    if kind in EXPECTED:
        example = _example(detail["loc"]) if kind == "string_type" else None
        return f"expected {EXPECTED[kind]}, found {type_name(value)}", example
    context = detail.get("ctx", {})
    found = _shown(path, value, draft)
    if kind == "literal_error":
        accepted = ", ".join(re.findall(r"'([^']*)'", context["expected"]))
        return f"{found or 'this'} is not accepted", f"accepted: {accepted}"
    return _limit(kind, context), f"found {found}" if found else None


def _example(location: KeyPath) -> str | None:
    """A text that would do, where the schema has one: who writes ``5000`` has no unit either."""
    schema = _table_of(location[:-1]).model_json_schema().get("properties", {})
    of_key = schema.get(str(location[-1]), {})
    for part in (of_key, *of_key.get("anyOf", ())):
        if examples := part.get("examples"):
            return f"such as {quoted(examples[0])}"
    return None


def _limit(kind: str, context: Mapping[str, Any]) -> str:
    if kind == "value_error":
        return str(context["error"])
    if kind == "greater_than_equal":
        return f"must be at least {context['ge']}"
    if kind == "less_than_equal":
        return f"must be at most {context['le']}"
    if kind == "too_short":
        return "names none; at least one is needed"
    return "cannot be used"


def _unknown_key(location: KeyPath) -> tuple[str, str | None]:
    table, key = _table_of(location[:-1]), str(location[-1])
    if issubclass(table, ComputedTraitTable) and key in GuardTable.model_fields:
        return "unknown key", f"write guard = {{ {key} = … }}"
    if table is ComputedTraitTable and key in AudienceTable.model_fields:
        return "unknown key", "of a computed trait every change is told"
    return "unknown key", did_you_mean(key, table.model_fields)


def _table_of(location: KeyPath) -> type[Table]:
    match location:
        case ("sources" | "destinations" as tables, _, str(kind)):
            return TYPES[tables][kind]
        case ("sources", _, str(kind), "freshness"):
            return FRESHNESS[kind]
        case ("audiences", _):
            return AudienceTable
        case ("computed_traits", _):
            return ComputedTraitTable
        case ("audiences" | "computed_traits", _, "guard"):
            return GuardTable
        case (str(name),):
            return TABLES[name]
        case _:
            return Written


def _unknown_type(path: KeyPath, draft: Draft) -> tuple[str, str | None]:
    known = TYPES[str(path[0])]
    table, value = draft.value(path[:-1]), draft.value(path)
    if isinstance(table, dict) and "type" not in table:
        return "is missing", f"known: {listed(known)}"
    if not isinstance(value, str):
        return f"expected a string, found {type_name(value)}", f"known: {listed(known)}"
    found = _shown(path, value, draft)
    return f"unknown type {found}" if found else "unknown type", f"known: {listed(known)}"


def _shown(path: KeyPath, value: Any, draft: Draft) -> str | None:
    """``value`` as it may be repeated in a message."""
    if HIDDEN.intersection(path):
        return None
    if isinstance(value, str):
        return draft.shown(path, value)
    if isinstance(value, bool):
        return str(value).lower()
    return quoted(str(value)).strip('"') if isinstance(value, int | float) else None
