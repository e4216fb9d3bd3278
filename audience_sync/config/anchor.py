"""Relative paths made absolute, each from the folder of the file that names it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from audience_sync.config.address import absolute_file
from audience_sync.config.draft import Draft
from audience_sync.config.model import DEFAULT_STORE
from audience_sync.config.places import Findings, KeyPath


def anchor(draft: Draft, findings: Findings) -> None:
    """Make the paths in ``draft`` absolute, and name the default store beside the first file."""
    for path in _paths(draft):
        text = draft.value(path)
        if isinstance(text, str) and text.strip() and "\0" not in text:
            draft.put(path, os.path.abspath(draft.folder(path) / text))
    _anchor_store(draft, findings)
    for name in draft.tables("sources"):
        _anchor_url(draft, ("sources", name, "url"), findings)


def _paths(draft: Draft) -> Iterator[KeyPath]:
    yield ("engine", "spill")
    for name in draft.tables("sources"):
        yield ("sources", name, "root")
    for name in draft.tables("destinations"):
        yield ("destinations", name, "path")
    for path, _ in draft.audiences():
        yield (*path, "query_file")


def _anchor_store(draft: Draft, findings: Findings) -> None:
    path = ("store", "url")
    store = draft.data.setdefault("store", {})
    if not isinstance(store, dict):
        return
    if "url" not in store:
        store["url"] = DEFAULT_STORE
        draft.places[path] = draft.first.place(path)
    _anchor_url(draft, path, findings)


def _anchor_url(draft: Draft, path: KeyPath, findings: Findings) -> None:
    url = draft.value(path)
    if not isinstance(url, str):
        return
    try:
        draft.put(path, absolute_file(url, draft.folder(path)))
    except ValueError as error:
        findings.problem(draft.place(path), str(error))
