"""Which rows of a read are refused, and why: SQL that runs once over every row."""

from __future__ import annotations

from audience_sync.engines.columns import Carried

MAX_ID_LENGTH = 255
"""Characters."""

# Order matters: the first that applies is counted. RE2, which DuckDB uses, has no look-around.
UNUSABLE_IDS = (
    ("user_id is missing", "user_id IS NULL"),
    ("user_id is empty or white space", "length(trim(user_id)) = 0"),
    (f"user_id is over {MAX_ID_LENGTH} characters", f"length(user_id) > {MAX_ID_LENGTH}"),
    ("user_id holds control characters", r"regexp_matches(user_id, '[\x00-\x1f\x7f]')"),
    ("user_id starts or ends with white space", r"regexp_matches(user_id, '^\pZ|\pZ$')"),
    (
        "user_id is a word for nothing (null, NaN, None, undefined)",
        "lower(user_id) IN ('null', 'nan', 'none', 'undefined')",
    ),
    (
        "user_id looks like a float",
        # A plain 12e45 may be a hexadecimal id; with a dot or a signed exponent it is not.
        r"regexp_full_match(user_id, '[+-]?\d+(\.\d*([eE][+-]?\d+)?|[eE][+-]\d+)')",
    ),
)
USABLE_FROM = 100
"""Codes from here on: the id is usable, so the member stays as it was."""


def refusal(carried: list[Carried]) -> str:
    """SQL over ``user_id`` and ``u0``, ``u1``, … (column i is unusable): 0 for a good row, else
    the code that ``reason`` explains."""
    tests = [f"WHEN {sql} THEN {code}" for code, (_, sql) in enumerate(UNUSABLE_IDS, start=1)]
    tests += [
        f"WHEN u{i} THEN {USABLE_FROM + i}" for i, column in enumerate(carried) if column.unusable
    ]
    return f"CAST(CASE {' '.join(tests)} ELSE 0 END AS USMALLINT)"


def reason(code: int, carried: list[Carried]) -> str:
    if code < USABLE_FROM:
        return UNUSABLE_IDS[code - 1][0]
    return (
        f"{carried[code - USABLE_FROM].name} is not a number that can travel (NaN, Inf, too large)"
    )
