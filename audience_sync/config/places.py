"""Where something is written in which file, and what is wrong there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

KeyPath = tuple[str | int, ...]
"""``("audiences", 0, "every")`` is ``audiences[0].every``."""

BARE = re.compile(r"[A-Za-z0-9_-]+\Z")
LONGEST_SHOWN = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """``config.toml:9: audiences[0].every``; ``order`` is the file's turn among all files."""

    file: Path
    order: int = 0
    line: int | None = None
    column: int | None = None
    path: KeyPath = ()

    def __str__(self) -> str:
        numbers = [str(number) for number in (self.line, self.column) if number is not None]
        spot = ":".join([printable(str(self.file)), *numbers])
        return f"{spot}: {dotted(self.path)}" if self.path else spot

    @property
    def spot(self) -> str:
        """``config.toml:9``, to be named inside a sentence about another place."""
        return f"{printable(str(self.file))}:{self.line}"


@dataclass(slots=True)
class Findings:
    """Problems and warnings as they are found; each is told once, in the order of the files."""

    _problems: list[tuple[Place, str]] = field(default_factory=list)
    _warnings: list[tuple[Place, str]] = field(default_factory=list)

    def problem(self, place: Place, text: str, hint: str | None = None) -> None:
        self._problems.append((place, _sentence(text, hint)))

    def warn(self, place: Place, text: str, hint: str | None = None) -> None:
        self._warnings.append((place, _sentence(text, hint)))

    @property
    def problems(self) -> tuple[str, ...]:
        return _ordered(self._problems)

    @property
    def warnings(self) -> tuple[str, ...]:
        return _ordered(self._warnings)


def dotted(path: KeyPath) -> str:
    """``audiences[0].every``; a key that TOML would quote is quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if BARE.match(part) else quoted(part))
    return text


def quoted(text: str) -> str:
    """In double quotes, cut when long, harmless on a terminal."""
    if len(text) > LONGEST_SHOWN:
        text = text[:LONGEST_SHOWN] + "…"
    return printable(json.dumps(text, ensure_ascii=False))


def listed(names: Iterable[str]) -> str:
    return ", ".join(quoted(name) for name in sorted(names))


def printable(text: str) -> str:
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _sentence(text: str, hint: str | None) -> str:
    return f"{text} ({hint})" if hint else text


def _ordered(findings: list[tuple[Place, str]]) -> tuple[str, ...]:
    ranked = sorted(findings, key=lambda one: (one[0].order, one[0].line or 0))
    return tuple(dict.fromkeys(f"{place}: {text}" for place, text in ranked))
