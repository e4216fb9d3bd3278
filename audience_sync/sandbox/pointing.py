"""The lines of configuration that point at a sandbox."""

from __future__ import annotations

import json
import re

from audience_sync.sandbox.options import Options

LINES = """\
[destinations.segment]
type = "segment"
write_key = {write_key}
endpoint = {endpoint}

[destinations.crisp]
type = "crisp"
api_key = {api_key}
website_id = {website_id}
tier = {tier}
endpoint = {endpoint}
rate = "1000/s"    # requests; Crisp itself would not bear it"""

SHAPE = re.compile(re.sub(r"\\{\w+\\}", r'"[^\n]*"', re.escape(LINES)) + r"\n?")


def configuration(options: Options, base: str) -> str:
    """TOML. ``base``: the sandbox's address, without a slash at its end."""
    return LINES.format(
        write_key=_string(options.write_key),
        api_key=_string(options.crisp_key),
        website_id=_string(options.websites[0]),
        tier=_string(options.tiers[0]),
        endpoint=_string(f"{base}/v1"),
    )


def is_configuration(text: str) -> bool:
    """Whether ``text`` is what a sandbox wrote, and nothing more."""
    return SHAPE.fullmatch(text) is not None


def _string(text: str) -> str:
    """What JSON quotes, TOML reads; and ``${`` is no reference."""
    return json.dumps(text, ensure_ascii=False).replace("${", "$${")
