"""The program wired for a store, as the daemon has it; its audiences are captured by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from audience_sync.app import App
from audience_sync.bootstrap import build
from audience_sync.config.load import load

SOURCE = '[sources.files]\ntype = "files"\nroot = "."\n'
DESTINATION = '[destinations.{0}]\ntype = "ndjson"\npath = "{0}.ndjson"\nrate = "50/s"\n'


def written(
    folder: Path, url: str, audiences: Mapping[str, Iterable[str]], quotas: Mapping[str, str]
) -> Path:
    """A configuration of audiences, each with where it is told, and of quotas of destinations."""
    parts = [f'[store]\nurl = "{url}"\n', SOURCE]
    for name in sorted({name for places in audiences.values() for name in places}):
        quota = f'quota = "{quotas[name]}"\n' if name in quotas else ""
        parts.append(DESTINATION.format(name) + quota)
    for key, places in audiences.items():
        parts.append(
            f'[[audiences]]\nname = "{key}"\nsource = "files"\nquery = "FROM \'{key}.csv\'"\n'
            f"destinations = {json.dumps([*places])}\n"
        )
    path = folder / "config.toml"
    path.write_text("\n".join(parts))
    return path


def wired(
    folder: Path,
    url: str,
    audiences: Mapping[str, Iterable[str]] | None = None,
    quotas: Mapping[str, str] | None = None,
) -> App:
    path = written(folder, url, audiences or {"vip": ["calls"]}, quotas or {})
    return build(load([path], {}), writes=True)
