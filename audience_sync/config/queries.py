"""The query of each audience, from the configuration or from a file beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audience_sync.config.draft import Draft
from audience_sync.config.files import Unreadable, read
from audience_sync.config.places import Findings, KeyPath

QUERY_FILE_LIMIT = 1_000_000


def read_queries(draft: Draft, findings: Findings) -> dict[KeyPath, str]:
    """The query of every audience that has exactly one, by the path of the audience."""
    queries: dict[KeyPath, str] = {}
    for path, audience in draft.audiences():
        query = _query(draft, path, audience, findings)
        if query is not None:
            queries[path] = query
    return queries


def _query(draft: Draft, path: KeyPath, audience: dict[str, Any], findings: Findings) -> str | None:
    if "query" in audience and "query_file" in audience:
        place = draft.place((*path, "query_file"))
        findings.problem(place, "there is a query too", "keep one of query and query_file")
        return None
    if "query_file" in audience:
        return _from_file(draft, (*path, "query_file"), audience["query_file"], findings)
    if "query" not in audience:
        place = draft.place((*path, "query"))
        findings.problem(place, "is missing", "write query or query_file")
        return None
    return _usable(draft, (*path, "query"), audience["query"], findings)


def _from_file(draft: Draft, path: KeyPath, name: Any, findings: Findings) -> str | None:
    if not isinstance(name, str) or not name.strip() or "\0" in name or draft.fails(path):
        return None
    try:
        text = read(Path(name), limit=QUERY_FILE_LIMIT).text
    except Unreadable as error:
        findings.problem(draft.place(path), f"{draft.shown(path, name)} {error}", error.hint)
        return None
    return _usable(draft, path, text, findings)


def _usable(draft: Draft, path: KeyPath, query: Any, findings: Findings) -> str | None:
    if not isinstance(query, str) or draft.fails(path):
        return None
    if not query.strip() or "\0" in query:
        what = "holds a NUL character" if query.strip() else "the query is empty"
        findings.problem(draft.place(path), what)
        return None
    return query
