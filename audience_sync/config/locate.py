"""On which line each key of a TOML text is written, which ``tomllib`` does not tell."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from contextlib import suppress

from audience_sync.config.places import KeyPath

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
PART = re.compile(_PART)
KEY = re.compile(rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*")
BLANK = re.compile(r"(?:[\s,]|\#[^\n]*)*")
"""White space, comments, and the commas between the items of an array or inline table."""
TEXT = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:[^"\\]|\\.)*"' r"|'[^']*'", re.DOTALL
)
PLAIN = re.compile(r"[^,\]}#\n]+")


def lines(text: str) -> Mapping[KeyPath, int]:
    """The line, from 1, of every key, table header and array item.

    Args:
        text: what ``tomllib`` has accepted; of anything else the lines up to the fault are told.
    """
    scan = _Scan(text)
    with suppress(_NotToml):
        scan.document()
    return scan.found


class _NotToml(Exception):
    pass


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[KeyPath, int] = {}
        self._breaks = [match.start() for match in re.finditer("\n", text)]
        self._items: dict[KeyPath, int] = {}
        """Number of tables so far of each ``[[array of tables]]``."""

    def document(self) -> None:
        table: KeyPath = ()
        while self._more():
            table = self._header() if self._peek("[") else self._pair(table)

    def _more(self) -> bool:
        self._take(BLANK)
        return self.at < len(self.text)

    def _peek(self, start: str) -> bool:
        return self.text.startswith(start, self.at)

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise _NotToml
        self.at = match.end()
        return match[0]

    def _skip(self, mark: str) -> None:
        self._take(re.compile(rf"[ \t]*{re.escape(mark)}[ \t]*"))

    def _note(self, path: KeyPath, at: int) -> None:
        self.found.setdefault(path, bisect_right(self._breaks, at) + 1)

    def _header(self) -> KeyPath:
        start = self.at
        mark = "[[" if self._peek("[[") else "["
        self._skip(mark)
        *parents, last = _parts(self._take(KEY))
        self._skip("]" * len(mark))
        path: KeyPath = ()
        for part in parents:
            path = self._newest((*path, part), start)
        path = (*path, last)
        if mark == "[[":
            self._items[path] = self._items.get(path, 0) + 1
        path = self._newest(path, start)
        # Not setdefault: a header says more than the header of a table inside it that came first.
        self.found[path] = bisect_right(self._breaks, start) + 1
        return path

    def _newest(self, path: KeyPath, at: int) -> KeyPath:
        self._note(path, at)
        if path in self._items:
            path = (*path, self._items[path] - 1)
            self._note(path, at)
        return path

    def _pair(self, table: KeyPath) -> KeyPath:
        """One ``key = value``; ``table`` again, for the pairs that follow."""
        start = self.at
        path = table
        for part in _parts(self._take(KEY)):
            path = (*path, part)
            self._note(path, start)
        self._skip("=")
        self._value(path)
        return table

    def _value(self, path: KeyPath) -> None:
        if self._peek('"') or self._peek("'"):
            self._take(TEXT)
        elif self._peek("["):
            self._array(path)
        elif self._peek("{"):
            self._inline_table(path)
        else:
            self._take(PLAIN)

    def _array(self, path: KeyPath) -> None:
        self._skip("[")
        index = 0
        while self._more() and not self._peek("]"):
            self._note((*path, index), self.at)
            self._value((*path, index))
            index += 1
        self._skip("]")

    def _inline_table(self, path: KeyPath) -> None:
        self._skip("{")
        while self._more() and not self._peek("}"):
            self._pair(path)
        self._skip("}")


def _parts(key: str) -> list[str]:
    return [_unquoted(part) for part in PART.findall(key)]


def _unquoted(part: str) -> str:
    if part[0] == "'":
        return part[1:-1]
    return str(tomllib.loads(f"key = {part}")["key"]) if part[0] == '"' else part
