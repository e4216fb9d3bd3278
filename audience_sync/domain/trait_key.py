"""From an audience's name to the trait key that travels on Identify."""

from __future__ import annotations

import re
import unicodedata

import inflection

KEY = re.compile(r"[a-z][a-z0-9_]*\Z")
MAX_LENGTH = 120
"""Characters; longer names are refused, so that a key stays readable and indexable."""

RESERVED = frozenset(
    {
        # read by Segment's own destinations as something other than a custom trait
        "id", "user_id", "anonymous_id", "email", "name", "first_name", "last_name", "phone",
        "avatar", "address", "age", "birthday", "company", "created_at", "description", "gender",
        "title", "username", "website",
        # columns of a query, and keys of a Track call's properties
        "value", "audience_key", "trait_key", "null", "true", "false", "none",
    }
)  # fmt: skip


def trait_key(name: str) -> str:
    """The trait key of an audience name; ``""`` when the name yields none (``日本``).

    A name with spaces or punctuation is parameterized (``Order Completed Last 30days`` →
    ``order_completed_last_30days``, ``iOS users`` → ``ios_users``); a single word is underscored
    first (``OrderCompletedLast30days`` → ``order_completed_last30days``). Hyphens, which
    ``parameterize`` keeps, become underscores too (``Win-back`` → ``win_back``).
    """
    text = unicodedata.normalize("NFC", name).strip()
    if text.isalnum():
        text = inflection.underscore(text)
    hyphenated = inflection.parameterize(text, "_")
    return "_".join(re.findall(r"[a-z0-9]+", hyphenated))


def refusal(key: str) -> str | None:
    """Why ``key`` cannot be a trait key, or ``None``."""
    if not key:
        return "yields no trait key"
    if not KEY.match(key):
        return "must start with a letter and hold only a-z, 0-9 and _"
    if len(key) > MAX_LENGTH:
        return f"has {len(key)} characters (limit {MAX_LENGTH})"
    if key in RESERVED:
        return "is reserved: destinations read it as something else"
    return None


def fold(text: str) -> str:
    """Equal for names that a person, a file system or a destination may take for the same."""
    return unicodedata.normalize("NFKC", text).casefold().strip()
