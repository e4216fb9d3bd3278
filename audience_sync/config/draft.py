"""All files merged into one, each key remembering where it was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audience_sync.config.interpolate import fill
from audience_sync.config.places import Findings, KeyPath, Place, quoted
from audience_sync.config.read import Document

AUDIENCES = ("audiences", "computed_traits")
"""The arrays of tables whose items are audiences; the second kind carries a value."""

SECRET_KEYS = frozenset({"write_key", "token", "integrations", "connect_args"})
"""What is filled in here is a secret, whatever the variable is called."""


@dataclass(slots=True)
class Draft:
    """What people wrote, merged but not yet checked, so any value may have any type.

    ``outside``: strings to which the environment or a file gave text; their values are never
    shown. ``failed``: strings that could not be filled in; nothing more is said about them.
    """

    first: Document
    data: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)
    written: dict[KeyPath, str] = field(default_factory=dict)
    """Strings as they were before they were filled in, where that changed them."""
    outside: set[KeyPath] = field(default_factory=set)
    failed: set[KeyPath] = field(default_factory=set)
    secrets: set[str] = field(default_factory=set)
    secret_files: set[Path] = field(default_factory=set)

    def place(self, path: KeyPath) -> Place:
        """Where ``path`` is written, or the nearest table around it."""
        known = path
        while known and known not in self.places:
            known = known[:-1]
        around = self.places.get(known, self.first.place(()))
        return Place(
            file=around.file,
            order=around.order,
            line=around.line,
            path=around.path + path[len(known) :],
        )

    def folder(self, path: KeyPath) -> Path:
        return self.place(path).file.parent

    def value(self, path: KeyPath) -> Any:
        return _at(self.data, path)

    def put(self, path: KeyPath, value: Any) -> None:
        """Replace the value at ``path``, which exists."""
        _at(self.data, path[:-1])[path[-1]] = value

    def tables(self, name: str) -> dict[str, dict[str, Any]]:
        """The tables ``[name.…]``, by name; what is no table is left out."""
        table = self.data.get(name)
        if not isinstance(table, dict):
            return {}
        return {key: value for key, value in table.items() if isinstance(value, dict)}

    def audiences(self) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
        """Every audience and every computed trait."""
        for array in AUDIENCES:
            for index, audience in enumerate(self.data.get(array, [])):
                if isinstance(audience, dict):
                    yield (array, index), audience

    def shown(self, path: KeyPath, text: str) -> str:
        """``text`` of ``path`` as a message may repeat it: never what came from outside."""
        return quoted(self.written[path] if path in self.outside else text)

    def fails(self, path: KeyPath) -> bool:
        return any(path[: len(failed)] == failed for failed in self.failed)


def merge(documents: Sequence[Document], findings: Findings) -> Draft:
    """Later files win, table by table; audiences are added.

    A value is placed where it was written last, a table where it was written first.
    """
    draft = Draft(first=documents[0], data={array: [] for array in AUDIENCES})
    for document in documents:
        _add(draft, document, findings)
    return draft


def _add(draft: Draft, document: Document, findings: Findings) -> None:
    data = document.data
    arrays = {array: _array(draft, document, array, findings) for array in AUDIENCES}
    before = {array: len(draft.data[array]) for array in AUDIENCES}
    for path in document.lines:
        merged = path
        if path[0] in AUDIENCES and len(path) > 1 and isinstance(path[1], int):
            merged = (path[0], path[1] + before[path[0]], *path[2:])
        tables = isinstance(draft.value(merged), dict) and isinstance(_at(data, path), dict)
        if merged not in draft.places or not tables:
            draft.places[merged] = document.place(path)
    added = {array: [*draft.data[array], *items] for array, items in arrays.items()}
    draft.data = _merged(draft.data, data) | added


def _array(draft: Draft, document: Document, name: str, findings: Findings) -> list[Any]:
    items = document.data.get(name, [])
    if isinstance(items, list):
        return items
    place = document.place((name,))
    findings.problem(place, "expected an array of tables", f"write [[{name}]]")
    draft.failed.add((name,))
    return []


def _merged(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    result = dict(earlier)
    for key, value in later.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            result[key] = _merged(old, value)
        else:
            result[key] = value
    return result


def _at(value: Any, path: KeyPath) -> Any:
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def interpolate(draft: Draft, environ: Mapping[str, str], findings: Findings) -> None:
    """Fill in every string of ``draft``, and remember which were filled from outside."""
    draft.data = _interpolated(draft, (), draft.data, environ, findings)


def _interpolated(
    draft: Draft, path: KeyPath, value: Any, environ: Mapping[str, str], findings: Findings
) -> Any:
    if isinstance(value, dict):
        return {
            key: _interpolated(draft, (*path, key), inner, environ, findings)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [
            _interpolated(draft, (*path, index), inner, environ, findings)
            for index, inner in enumerate(value)
        ]
    if isinstance(value, str) and "${" in value:
        return _filled(draft, path, value, environ, findings)
    return value


def _filled(
    draft: Draft, path: KeyPath, value: str, environ: Mapping[str, str], findings: Findings
) -> str:
    place = draft.place(path)
    filled = fill(value, environ, place.file.parent)
    for text, hint in filled.problems:
        findings.problem(place, text, hint)
    for text, hint in filled.warnings:
        findings.warn(place, text, hint)
    draft.written[path] = value
    draft.secret_files.update(filled.files)
    if filled.problems:
        draft.failed.add(path)
    if filled.outside:
        draft.outside.add(path)
    draft.secrets.update(filled.values if SECRET_KEYS.intersection(path) else filled.secrets)
    return filled.text
