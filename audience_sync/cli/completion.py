"""What a shell offers for AUDIENCE and ``--destination``: what the configuration names.

A person is typing: nothing is said when the configuration cannot be read, nothing heavy is
imported, and the store is not opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import rich_click as click
from click.shell_completion import CompletionItem

Items = list[CompletionItem]


def config_files(named: tuple[Path, ...]) -> tuple[Path, ...]:
    """The files of ``--config``, or else the default."""
    return named or (Path(os.environ.get("AUDIENCE_SYNC_CONFIG") or "config.toml"),)


def audiences(context: click.Context, _: click.Parameter, incomplete: str) -> Items:
    """Keys, with the names as their explanation; those on the line already are left out."""
    given = context.params.get("audiences") or ()
    found: Items = []
    with suppress(Exception):
        for key, name in _audiences(context):
            if key.startswith(incomplete) and key not in given:
                found.append(CompletionItem(key, help=None if name == key else name))
    return found


def destinations(context: click.Context, _: click.Parameter, incomplete: str) -> Items:
    found: Items = []
    with suppress(Exception):
        for document in _documents(context):
            names = dict(document.get("destinations", {}))
            found += [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return found


def _audiences(context: click.Context) -> Iterator[tuple[str, str]]:
    from audience_sync.domain.trait_key import trait_key

    for document in _documents(context):
        for table in ("audiences", "computed_traits"):
            for entry in document.get(table, ()):
                with suppress(Exception):  # one that is being written
                    yield str(entry.get("key") or trait_key(entry["name"])), str(entry["name"])


def _documents(context: click.Context) -> Iterator[dict[str, Any]]:
    """Every file and what it includes, as far as it can be read."""
    from audience_sync.config.places import Findings
    from audience_sync.config.read import read_all

    files = config_files(context.find_root().params.get("files") or ())
    documents, _ = read_all(files, os.environ, Findings())
    for document in documents:
        yield document.data
