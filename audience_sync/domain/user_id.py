"""Which user ids no destination can be told of."""

from __future__ import annotations

MAX_ID_LENGTH = 255
"""Characters."""

WORDS_FOR_NOTHING = ("null", "nan", "none", "undefined")
"""Not ids, whatever their case."""


def unusable_id(user_id: str) -> str | None:
    """Why no destination can be told of ``user_id``; ``None``: it can."""
    if not user_id.strip():
        return "it is empty"
    if user_id.lower() in WORDS_FOR_NOTHING:
        return "it is a word for nothing, as a script writes it that has no id"
    if len(user_id) > MAX_ID_LENGTH:
        return f"it is over {MAX_ID_LENGTH} characters"
    if user_id != user_id.strip() or not user_id.isprintable():
        return "it holds control characters, or begins or ends with white space"
    return None
