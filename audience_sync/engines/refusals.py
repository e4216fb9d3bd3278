"""Which rows of a read are refused, and why: SQL that runs once over every row."""

from __future__ import annotations

from collections.abc import Sequence

from audience_sync.domain import forgotten
from audience_sync.domain.user_id import MAX_ID_LENGTH, WORDS_FOR_NOTHING
from audience_sync.engines.columns import Carried

PLAIN = "regexp_full_match(user_id, '[!-~]+')"
"""Printable ASCII without white space. Nearly all ids are, and two thirds of the tests, which
would take longer than the comparison itself, are then passed already."""

# The first test that applies is counted. RE2, which DuckDB uses, has no look-around.
TOO_LONG = (f"user_id is over {MAX_ID_LENGTH} characters", f"length(user_id) > {MAX_ID_LENGTH}")
OF_PLAIN_IDS = (
    TOO_LONG,
    (
        "user_id is a word for nothing (null, NaN, None, undefined)",
        f"lower(user_id) IN {WORDS_FOR_NOTHING}",
    ),
    (
        "user_id looks like a float",
        # A plain 12e45 may be a hexadecimal id; with a dot or a signed exponent it is not.
        r"regexp_full_match(user_id, '[+-]?((\d+\.\d*|\.\d+)([eE][+-]?\d+)?|\d+[eE][+-]\d+)')",
    ),
)
OF_OTHER_IDS = (
    ("user_id is missing", "user_id IS NULL"),
    ("user_id is empty or white space", r"regexp_full_match(user_id, '[\s\pZ]*')"),
    TOO_LONG,
    ("user_id holds control characters", r"regexp_matches(user_id, '\p{Cc}')"),
    ("user_id starts or ends with white space", r"regexp_matches(user_id, '^\pZ|\pZ$')"),
)
UNUSABLE_IDS = tuple(dict(OF_PLAIN_IDS + OF_OTHER_IDS))
FORGOTTEN = 99
"""Code of the rows of people who asked to be forgotten: no id to keep a member by."""
USABLE_FROM = 100
"""Codes from here on: the id is usable, so the member stays as it was."""
USABLE = f"(refusal = 0 OR refusal >= {USABLE_FROM})"


def refusal(carried: Sequence[Carried]) -> str:
    """SQL over ``user_id`` and ``u0``, ``u1``, … (column i is unusable): 0 for a good row, else
    the code that ``reason`` explains."""
    of_id = f"CASE WHEN {PLAIN} THEN {_first(OF_PLAIN_IDS)} ELSE {_first(OF_OTHER_IDS)} END"
    of_columns = "".join(
        f"WHEN u{i} THEN {USABLE_FROM + i} " for i, column in enumerate(carried) if column.unusable
    )
    found = f"{of_id}, CASE {of_columns}END" if of_columns else of_id
    return f"CAST(coalesce({found}, 0) AS USMALLINT)"


def but_forgotten(refusal: str, salt: str) -> str:
    """``refusal``, and ``FORGOTTEN`` for users in the table ``forgotten (reference)``."""
    literal = salt.replace("'", "''")
    reference = f"sha256('{literal}' || chr(0) || user_id)"
    return (
        f"CASE WHEN {reference} IN (SELECT reference FROM forgotten) "
        f"THEN {FORGOTTEN} ELSE {refusal} END"
    )


def reason(code: int, carried: Sequence[Carried]) -> str:
    if code == FORGOTTEN:
        return forgotten.REASON
    if code < USABLE_FROM:
        return UNUSABLE_IDS[code - 1]
    return (
        f"{carried[code - USABLE_FROM].name} is not a number that can travel (NaN, Inf, too large)"
    )


def _first(tests: Sequence[tuple[str, str]]) -> str:
    """The code of the first test that applies, or NULL."""
    cases = " ".join(f"WHEN {sql} THEN {UNUSABLE_IDS.index(why) + 1}" for why, sql in tests)
    return f"CASE {cases} END"
