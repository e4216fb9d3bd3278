"""Texts that stand where something was to be filled in."""

from __future__ import annotations

import re

PLACEHOLDER = re.compile(
    r"""(?: <.*> | \[.*\] | \{.*\}            # <write key>
      | .*\byour[\ _-]?\w* .*  | .*_your_.*   # YOUR_WRITE_KEY
      | change[\ _-]?(me|this|it).* | replace[\ _-]?(me|this|it|with).* | insert[\ _-].*
      | [x*.…?]{3,} | x{3,}[\ _-].*           # xxx
      | todo | tbd | fixme | placeholder | dummy | example | secret | none | null
      | (segment[\ _-]?)?(write|api)[\ _-]?key | \.\.\. )\Z""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)

OF_SANDBOX = frozenset({"sandbox-write-key", "sandbox:sandbox-key"})
"""Keys that every sandbox takes, so they may stand in a file."""


def is_placeholder(text: str) -> bool:
    """``YOUR_WRITE_KEY``, ``changeme``, ``<key>``, ``xxx`` and the like."""
    return PLACEHOLDER.match(text.strip()) is not None
