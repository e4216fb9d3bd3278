"""From the names in a query to files under a source's root."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from audience_sync.errors import SourceFailed, SourceRefused, SourceReplaced

GLOB = re.compile(r"[*?\[]")
Signature = tuple[int, int, int]
"""Inode, size in bytes, time of the last change in nanoseconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The files that the names of one reader stood for when the read began."""

    root: Path
    names: tuple[str, ...]
    signatures: tuple[tuple[Path, Signature], ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(path for path, _ in self.signatures)

    @property
    def written_at(self) -> datetime:
        """When the newest of the files was written."""
        newest = max(nanoseconds for _, (_, _, nanoseconds) in self.signatures)
        return datetime.fromtimestamp(newest / 1e9, UTC)

    def change(self) -> SourceFailed | None:
        """The failure to raise when a file, or the set a glob matches, is not what it was."""
        before, after = dict(self.signatures), dict(self._signatures_now())
        paths = sorted(before.keys() | after.keys())
        changed = [path for path in paths if before.get(path) != after.get(path)]
        if not changed:
            return None
        replaced = all(_is_another(before.get(path), after.get(path)) for path in changed)
        return (SourceReplaced if replaced else SourceFailed)(
            f"{shown(changed[0], self.root)} changed while it was read",
            hint="write a new file and rename it into place",
        )

    def _signatures_now(self) -> Iterator[tuple[Path, Signature]]:
        try:
            yield from _signatures(self.root, self.names)
        except (OSError, SourceRefused):
            return


def _is_another(before: Signature | None, after: Signature | None) -> bool:
    """A file of another inode was renamed into place; one that is being written keeps its own."""
    return before is not None and after is not None and before[0] != after[0]


def select(root: Path, names: Sequence[str]) -> Selection:
    """The files that ``names`` stand for, in the order of their names.

    Raises:
        SourceRefused: a name leads out of ``root``, or stands for nothing or for a folder.
        OSError: a folder or file may not be read.
    """
    for name in names:
        _check_inside(name)
        if not _matching(root, name):
            raise SourceRefused(
                f"{name}: no such file under {root}",
                hint="names in a query are relative to the source's root",
            )
    return Selection(root=root, names=tuple(names), signatures=tuple(_signatures(root, names)))


def shown(path: Path, root: Path) -> str:
    """``path`` as a person wrote it: relative to ``root``."""
    return path.relative_to(root).as_posix()


def literal_glob(path: Path) -> str:
    """A pattern for DuckDB that matches exactly ``path``."""
    return GLOB.sub(r"[\g<0>]", str(path))


def _check_inside(name: str) -> None:
    path = PurePosixPath(name)
    if "://" in name:
        raise SourceRefused(
            f"{name.partition('://')[0]}:// cannot be read by a source of type files",
            hint="it reads files under its root, and never the network",
        )
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise SourceRefused(
            f"{name}: leads out of the source's root",
            hint="name it relative to root, or give the source another root",
        )


def _signatures(root: Path, names: Iterable[str]) -> Iterator[tuple[Path, Signature]]:
    paths = dict.fromkeys(path for name in names for path in _matching(root, name))
    for path in paths:
        if _mode(path, follow=True) is None:
            raise SourceRefused(f"{shown(path, root)}: is a link to nothing")
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SourceRefused(f"{shown(path, root)}: is not a file")
        yield path, (status.st_ino, status.st_size, status.st_mtime_ns)


def _matching(root: Path, name: str) -> list[Path]:
    """Like ``Path.glob``, but what cannot be looked at is an error, not an empty folder."""
    if _mode(root / name, follow=False) is not None:
        return [root / name]
    found = [root]
    for part in PurePosixPath(name).parts:
        found = [path for folder in found for path in _step(folder, part)]
    return sorted(path for path in set(found) if not _is_folder(path))


def _step(folder: Path, part: str) -> Iterable[Path]:
    if part == "**":
        return [folder, *_folders_below(folder)]
    if not GLOB.search(part):
        return [folder / part] if _mode(folder / part, follow=False) is not None else []
    names = os.listdir(folder) if _is_folder(folder) else []
    return [folder / name for name in names if _fits(name, part)]


def _fits(name: str, part: str) -> bool:
    """Hidden files (also rsync's unfinished ones) match only a part that is hidden itself."""
    return fnmatchcase(name, part) and name.startswith(".") == part.startswith(".")


def _folders_below(folder: Path) -> Iterator[Path]:
    for name in os.listdir(folder):
        below = folder / name
        if _is_folder(below) and not below.is_symlink() and not name.startswith("."):
            yield below
            yield from _folders_below(below)


def _is_folder(path: Path) -> bool:
    mode = _mode(path, follow=True)
    return mode is not None and stat.S_ISDIR(mode)


def _mode(path: Path, *, follow: bool) -> int | None:
    """``None`` when nothing is there; ``pathlib`` says the same for what it may not look at."""
    try:
        return os.stat(path, follow_symlinks=follow).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
