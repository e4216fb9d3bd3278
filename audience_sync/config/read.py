"""Reading configuration files and what they include."""

from __future__ import annotations

import glob
import itertools
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audience_sync.config import files
from audience_sync.config.interpolate import fill
from audience_sync.config.locate import lines
from audience_sync.config.places import Findings, KeyPath, Place, quoted

FILE_LIMIT = 4_000_000
DEEPEST = 32
"""Levels of tables and arrays; nothing that is accepted has more than a few."""

NO_CONFIGURATION = "audience-sync init writes one, --config names another"

FAULT = re.compile(
    r"(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)\Z",
    re.DOTALL,
)
"""How ``tomllib`` ends its messages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One file: its tables as TOML gave them, and the lines of its keys."""

    file: Path
    order: int
    data: dict[str, Any]
    lines: Mapping[KeyPath, int]

    def place(self, path: KeyPath) -> Place:
        """The line of ``path``, or of the nearest table around it; line 1 for the file."""
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        line = self.lines.get(known, 1)
        return Place(file=self.file, order=self.order, line=line, path=path)


def read_all(
    paths: Sequence[Path], environ: Mapping[str, str], findings: Findings
) -> tuple[list[Document], bool]:
    """Every file, each followed by what it includes, and whether all of them could be read.

    A file that is named twice is read once, so files may include each other.
    """
    documents: list[Document] = []
    complete = True
    seen: set[str] = set()
    waiting = list(reversed(paths))
    while waiting:
        path = waiting.pop()
        if (real := _real(path)) in seen:
            continue
        seen.add(real)
        document = _document(path, len(seen), findings)
        if document is None:
            complete = False
            continue
        documents.append(document)
        waiting += reversed(list(_included(document, environ, findings)))
    return documents, complete


def _real(path: Path) -> str:
    try:
        return os.path.realpath(path)
    except OSError:  # the current folder is gone, and with it whatever is relative to it
        return str(path)


def _document(path: Path, order: int, findings: Findings) -> Document | None:
    place = Place(file=path, order=order)
    try:
        text = files.read(path, limit=FILE_LIMIT).text
    except files.Unreadable as error:
        place = Place(file=path, order=order, line=error.line)
        hint = NO_CONFIGURATION if isinstance(error, files.Missing) else error.hint
        findings.problem(place, str(error), hint)
        return None
    if not text.strip():
        findings.problem(place, "is empty", "it needs at least one source, destination, audience")
        return None
    data = _parsed(text, place, findings)
    if data is None:
        return None
    return Document(file=path, order=order, data=data, lines=lines(text))


def _parsed(text: str, place: Place, findings: Findings) -> dict[str, Any] | None:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        _syntax(text, str(error), place, findings)
        return None
    except RecursionError:
        data = None
    except ValueError:  # an integer of more than 4,300 digits
        findings.problem(place, "holds a number that is too long")
        return None
    if data is None or _too_deep(data):
        findings.problem(place, f"has tables or arrays more than {DEEPEST} levels deep")
        return None
    return data


def _syntax(text: str, error: str, place: Place, findings: Findings) -> None:
    match = FAULT.match(error)
    what = match["what"] if match else error
    hint = None
    line, column = text.count("\n") + 1, len(text) - text.rfind("\n")
    if match and match["line"]:
        line, column = int(match["line"]), int(match["column"])
        hint = "strings need quotes" if what == "Invalid value" else None
    spot = Place(file=place.file, order=place.order, line=line, column=column)
    findings.problem(spot, f"not TOML: {what[:1].lower()}{what[1:]}", hint)


def _too_deep(data: Any) -> bool:
    level: list[Any] = [data]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return True


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _included(document: Document, environ: Mapping[str, str], findings: Findings) -> Iterator[Path]:
    patterns = document.data.pop("include", [])
    if not isinstance(patterns, list):
        place = document.place(("include",))
        findings.problem(place, "expected an array of strings", 'include = ["audiences/*.toml"]')
        return
    for index, pattern in enumerate(patterns):
        place = document.place(("include", index))
        if not isinstance(pattern, str) or not pattern.strip() or "\0" in pattern:
            findings.problem(place, "expected a path or a pattern", 'such as "audiences/*.toml"')
            continue
        filled = fill(pattern, environ, document.file.parent)
        for text, hint in filled.problems:
            findings.problem(place, text, hint)
        if not filled.problems:
            found = list(_matches(filled.text, document.file.parent))
            if not found and _is_closed(document.file.parent / filled.text):
                findings.problem(place, f"the folder of {quoted(pattern)} may not be read")
            elif not found and glob.has_magic(filled.text):
                findings.warn(place, f"no file matches {quoted(pattern)}")
            elif not found:
                findings.problem(place, f"file {quoted(pattern)} does not exist")
            yield from found


def _is_closed(pattern: Path) -> bool:
    """Whether the folder above the first wildcard may not be looked into, and so seems empty."""
    plain = itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parent.parts)
    folder = Path(*plain)
    try:
        os.listdir(folder)
        os.stat(folder / "anything")
    except OSError as error:
        return isinstance(error, PermissionError)
    return False


def _matches(pattern: str, folder: Path) -> Iterator[Path]:
    found = sorted(glob.glob(pattern, root_dir=folder, recursive=True))
    if glob.has_magic(pattern):
        found = [name for name in found if os.path.isfile(folder / name)]
    for name in found:
        yield folder / name
