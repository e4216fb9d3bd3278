"""Files whose change means something, such as a secret that was rotated."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

Stamp = tuple[int, int, int] | None


class Watched:
    """Compares files with how they were; what a link leads to counts, as Kubernetes swaps links."""

    def __init__(self, paths: Collection[Path]) -> None:
        self._stamps = {path: _stamp(path) for path in paths}

    def changed(self) -> bool:
        """Whether any differs from how it was at the last question."""
        now = {path: _stamp(path) for path in self._stamps}
        before, self._stamps = self._stamps, now
        return now != before


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
