"""``${VAR}``, ``${VAR:-default}`` and ``${file:/path}`` inside the strings of a configuration.

Variables may stand in the path of a file: ``${file:${CREDENTIALS_DIRECTORY}/segment}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from audience_sync.config.files import Unreadable, read
from audience_sync.config.places import quoted

PLAIN = r"(?:[^}$]|\$(?!\{))*"
TOKEN = re.compile(
    rf"\$\$\{{|\$\{{(?P<inside>file:(?:{PLAIN}\$\{{(?!file:){PLAIN}\}})*{PLAIN}|{PLAIN})\}}|\$\{{"
)
VARIABLE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?\Z", re.DOTALL)
SECRET_NAME = re.compile(r"key|token|secret|pass|pwd|pw\b|cred|auth|dsn", re.IGNORECASE)
SECRET_FILE_LIMIT = 64 * 1024


@dataclass(slots=True)
class Filled:
    """A string after it was filled in.

    ``outside``: text came from the environment or a file. ``values``: that text; those in
    ``secrets`` are secret wherever they stand. ``files``: those that were read, or should have
    been.
    """

    text: str = ""
    outside: bool = False
    values: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    problems: list[tuple[str, str | None]] = field(default_factory=list)
    warnings: list[tuple[str, str | None]] = field(default_factory=list)


def fill(text: str, environ: Mapping[str, str], folder: Path) -> Filled:
    """``text`` with every ``${…}`` filled in; what cannot be is left as it is, with a problem.

    Args:
        folder: what a relative ``${file:…}`` is relative to.
    """
    filled = Filled()

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        value = _value(match["inside"], environ, folder, filled)
        return match[0] if value is None else value

    filled.text = TOKEN.sub(replace, text)
    return filled


def _value(
    inside: str | None, environ: Mapping[str, str], folder: Path, filled: Filled
) -> str | None:
    if inside is not None and inside.startswith("file:"):
        path = _path(inside.removeprefix("file:").strip(), environ, folder, filled)
        return None if path is None else _of_file(path, folder, filled)
    match = VARIABLE.match(inside or "")
    if match is None:
        filled.problems.append(
            (
                "has a ${…} that cannot be read",
                "${NAME}, ${NAME:-default}, ${file:/path}; $${ is ${",
            )
        )
        return None
    return _of_environment(match["name"], match["default"], environ, filled)


def _of_environment(
    name: str, default: str | None, environ: Mapping[str, str], filled: Filled
) -> str | None:
    value = environ.get(name, "")
    if not value and default is None:
        state = "empty" if name in environ else "not set"
        hint = f"set it, or write ${{{name}:-default}}"
        filled.problems.append((f"environment variable {name} is {state}", hint))
        return None
    if not value:
        return default
    if not value.isascii() and not _is_text(value):
        filled.problems.append((f"environment variable {name} is not UTF-8 text", "set it anew"))
        return None
    _remember(value, filled, secret=SECRET_NAME.search(name) is not None)
    return value


def _path(name: str, environ: Mapping[str, str], folder: Path, filled: Filled) -> str | None:
    """Where a file lies is no secret, whatever the variable that says it is called."""
    inner = fill(name, environ, folder)
    filled.problems += inner.problems
    return None if inner.problems else inner.text


def _of_file(name: str, folder: Path, filled: Filled) -> str | None:
    path = folder / name
    if not name:
        filled.problems.append(("${file:…} names no file", "write ${file:/path}"))
        return None
    filled.files.append(path)
    try:
        file = read(path, limit=SECRET_FILE_LIMIT)
    except Unreadable as error:
        filled.problems.append((f"secret file {quoted(str(path))} {error}", error.hint))
        return None
    value = file.text.strip()
    if not value:
        filled.problems.append(
            (f"secret file {quoted(str(path))} is empty", "write the secret into it")
        )
        return None
    if file.world_readable:
        filled.warnings.append(
            (f"secret file {quoted(str(path))} can be read by everyone", "chmod o-r")
        )
    _remember(value, filled, secret=True)
    return value


def _remember(value: str, filled: Filled, *, secret: bool) -> None:
    filled.outside = True
    filled.values.append(value)
    if secret:
        filled.secrets.append(value)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
