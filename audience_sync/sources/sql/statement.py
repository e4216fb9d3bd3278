"""The text of a query as a driver takes it: one SELECT, with ``:now`` bound and nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from audience_sync.errors import SourceRefused
from audience_sync.sources.query_text import PieceKind, fill_now, pieces

ONE_SELECT = "a query must be one SELECT that only reads"
"""Also said when the database itself refuses to write."""

READING = frozenset({"select", "values", "table", "from"})
WRITING = frozenset({"insert", "update", "delete", "merge", "into"})
WORD = re.compile(r"[()]|\w+")
PLACEHOLDERS = {
    "qmark": "?",
    "format": "%s",
    "pyformat": "%(now)s",
    "named": ":now",
    "numeric": ":1",
    "numeric_dollar": "$1",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """``parameters``: as the driver's style wants them; ``None``: there are none."""

    text: str
    parameters: dict[str, Any] | tuple[Any, ...] | None = None


def bind(query: str, now: object, *, paramstyle: str, backslashes: bool) -> Statement:
    """``query`` with each ``:now`` token as a parameter.

    A driver that looks for ``%s`` in the text looks everywhere in it, also in strings and
    comments, but only when it gets parameters.

    Args:
        now: the cycle time, as the driver takes it.
        paramstyle: of PEP 249, and SQLAlchemy's ``numeric_dollar``.
        backslashes: see ``query_text.OPENING``.
    """
    placeholder = PLACEHOLDERS[paramstyle]
    escaped = query.replace("%", "%%") if "%" in placeholder else query
    text, count = fill_now(escaped, placeholder, backslashes=backslashes)
    if not count:
        return Statement(text=query)
    if placeholder in (":now", "%(now)s"):
        return Statement(text=text, parameters={"now": now})
    times = count if placeholder in ("?", "%s") else 1
    return Statement(text=text, parameters=(now,) * times)


def one_select(query: str, *, backslashes: bool) -> str:
    """``query`` without a semicolon at its end, so that it can stand in brackets.

    This tells mistakes early. What keeps a query from writing is the read-only transaction, where
    the database has one, and the rights of its user.

    Raises:
        SourceRefused: it is not one SELECT.
    """
    bare = _bare(query, backslashes=backslashes).rstrip()
    ended = bare.rstrip("; \t\r\n")
    words = _outer_words(ended)
    verbs = [word for word in words if word in READING | WRITING]
    reads = bool(words) and words[0] in READING | {"with"} and bool(verbs)
    if ";" in ended or not reads or verbs[0] in WRITING or "into" in words:
        raise SourceRefused(f"query: {ONE_SELECT}")
    return query[: len(ended)]


def _bare(query: str, *, backslashes: bool) -> str:
    """``query``, as long as it was, with blanks for comments and underscores for what is quoted."""
    text: list[str] = []
    position = 0
    for piece in pieces(query, backslashes=backslashes):
        if piece.kind is not PieceKind.NOW:
            blank = " " if piece.kind is PieceKind.COMMENT else "_"
            text += query[position : piece.start], blank * (piece.end - piece.start)
            position = piece.end
    return "".join(text) + query[position:]


def _outer_words(bare: str) -> list[str]:
    """The words outside of brackets; of a query that stands in brackets, those inside."""
    depth, outer, first = 0, list[str](), ""
    for match in WORD.finditer(bare):
        if match[0] == "(":
            depth += 1
        elif match[0] == ")":
            depth -= 1
        else:
            first = first or match[0].lower()
            outer += [match[0].lower()] * (depth == 0)
    return [first, *outer] if bare.lstrip().startswith("(") else outer
