"""Where the strings, names and comments of a query are, so that only ``:now`` outside is bound."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

STANDARD = r"""
      (?P<line_comment> --[^\r\n]* )
    | (?P<block_comment> /\* )
    | (?P<escaped> (?<![\w$]) [eE] ' (?: \\. | '' | [^'\\] )* (?: ' | \Z ) )
    | (?P<string> ' (?: '' | [^'] )* (?: ' | \Z ) )
    | (?P<name> " (?: "" | [^"] )* (?: " | \Z ) )
"""
BACKSLASHED = r"""
      (?P<line_comment> (?: -- | \# ) [^\r\n]* )
    | (?P<block_comment> /\* )
    | (?P<string> ' (?: \\. | '' | [^'\\] )* (?: ' | \Z )
                | " (?: \\. | "" | [^"\\] )* (?: " | \Z ) )
    | (?P<name> ` (?: `` | [^`] )* (?: ` | \Z ) )
"""
ANY = r"""
    | (?P<dollar> (?<![\w$]) \$ (?P<tag> (?: [^\W\d]\w* )? ) \$ .*? (?: \$(?P=tag)\$ | \Z ) )
    | (?P<now> (?<! [\w$:'")\]}`] ) :now (?! [\w$] | \s*\( ) )
"""


def _opening(quoting: str) -> re.Pattern[str]:
    return re.compile(quoting + ANY, re.VERBOSE | re.DOTALL)


OPENING = {False: _opening(STANDARD), True: _opening(BACKSLASHED)}
"""Whether a backslash escapes the next character of a string, as in MySQL and BigQuery; these also
have names in backticks and comments after #."""
BLOCK = re.compile(r"/\*|\*/")


class PieceKind(StrEnum):
    COMMENT = "comment"
    STRING = "string"
    NAME = "name"
    NOW = "now"


KINDS = {
    "line_comment": PieceKind.COMMENT,
    "block_comment": PieceKind.COMMENT,
    "escaped": PieceKind.STRING,
    "string": PieceKind.STRING,
    "dollar": PieceKind.STRING,
    "name": PieceKind.NAME,
    "now": PieceKind.NOW,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """``query[start:end]``, in characters."""

    kind: PieceKind
    start: int
    end: int


def pieces(query: str, *, backslashes: bool = False) -> Iterator[Piece]:
    """Strings, quoted names, comments and ``:now`` tokens, in order; the rest lies between.

    A colon that touches what stands before it (``a[1:now]``, ``'at':now``, ``x::now``) belongs to
    the query, and so does ``:now(`` (a struct's field with the function ``now()``). What is opened
    and never closed reaches to the end; the database refuses such a query.
    """
    position = 0
    while match := OPENING[backslashes].search(query, position):
        group = match.lastgroup if match.lastgroup != "tag" else "dollar"
        kind = KINDS[str(group)]
        position = _block_end(query, match.end()) if group == "block_comment" else match.end()
        yield Piece(kind=kind, start=match.start(), end=position)


def fill_now(query: str, placeholder: str, *, backslashes: bool = False) -> tuple[str, int]:
    """``query`` with each ``:now`` token replaced by ``placeholder``, and how many there were."""
    text: list[str] = []
    position = 0
    every = pieces(query, backslashes=backslashes)
    found = [piece for piece in every if piece.kind is PieceKind.NOW]
    for piece in found:
        text += query[position : piece.start], placeholder
        position = piece.end
    return "".join(text) + query[position:], len(found)


def quoted_at(query: str, name: str, start: int, end: int) -> tuple[int, int] | None:
    """Where ``name`` stands in ``query[start:end]``, in quotes or plain at its start."""
    for piece in pieces(query):
        text = query[piece.start : piece.end]
        quoted = piece.kind in {PieceKind.STRING, PieceKind.NAME} and start <= piece.start < end
        if quoted and text[1:-1].replace(text[0] * 2, text[0]) == name:
            return piece.start, piece.end
    return (start, start + len(name)) if query.startswith(name, start) else None


def call_at(query: str, function: str, start: int, end: int) -> tuple[int, int] | None:
    """From the function's name to its closing bracket, in ``query[start:end]``."""
    opaque = [piece for piece in pieces(query) if piece.kind is not PieceKind.NOW]
    depth, opened = 0, start
    for at in range(start, end):
        if query[at] not in "()" or any(piece.start <= at < piece.end for piece in opaque):
            continue
        opened = at if depth == 0 else opened
        depth += 1 if query[at] == "(" else -1
        if depth == 0:
            return max(query.lower().rfind(function.lower(), start, opened), start), at + 1
    return None


def _block_end(query: str, position: int) -> int:
    """Comments nest, as in PostgreSQL and DuckDB."""
    depth = 1
    while depth and (match := BLOCK.search(query, position)):
        depth += 1 if match.group() == "/*" else -1
        position = match.end()
    return len(query) if depth else position
