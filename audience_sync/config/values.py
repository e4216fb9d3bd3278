"""The values a person writes as text (``"20%"``, ``"3h"``, ``"768MB"``) and what they become.

Each type's JSON schema describes the text. Parsers raise ``ValueError`` with a sentence that does
not repeat the text: it may be a secret, or come from the environment.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, timedelta, tzinfo
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from audience_sync.config import address
from audience_sync.config.amounts import duration, quota, rate, reserve, share, size
from audience_sync.config.cadence import parse_cadence
from audience_sync.config.drivers import source_url
from audience_sync.config.placeholder import is_placeholder

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")
CALLS = (["identify"], ["identify", "track"])
LONGEST_SECRET = 1_000


def from_text(parse: Callable[[str], Any]) -> PlainValidator:
    """The value that ``parse`` makes of a TOML string; any other type is refused."""

    def check(value: Any) -> Any:
        if not isinstance(value, str):
            raise PydanticCustomError("string_type", "expected a string")
        return parse(value)

    return PlainValidator(check)


def timezone(text: str) -> tzinfo:
    if text.upper() in ("UTC", "Z"):
        return UTC  # needs no time zone data, which small containers lack
    try:
        return ZoneInfo(text)
    except (ValueError, OSError, KeyError):
        raise ValueError('unknown timezone; write a name such as "Europe/Berlin"') from None


def every(text: str) -> str:
    """Checks a cadence. The text stays, since a cron line also needs the time zone."""
    parse_cadence(text, UTC)
    return text


def secret(text: str) -> str:
    if not text:
        raise ValueError("is empty; a key is needed")
    if len(text) > LONGEST_SECRET:
        raise ValueError(f"has {len(text):,} characters, more than any key has")
    if is_placeholder(text):
        raise ValueError("is a placeholder, not a key; put the key into a variable or a file")
    if not text.isascii() or not text.isprintable() or " " in text or ":" in text:
        raise ValueError("holds white space, a colon or other characters that no key has")
    return text


def path(text: str) -> Path:
    if not text.strip():
        raise ValueError("is empty")
    if "\0" in text:
        raise ValueError("is not a usable path")
    return Path(text)


def label(text: str) -> str:
    """A name that people read."""
    if not text.strip():
        raise ValueError("is empty")
    if not text.isprintable() or len(text) > 200:
        raise ValueError("must be one line of at most 200 characters")
    return text


def name(text: str) -> str:
    """A name of a source or destination, which also stands in leases and logs."""
    if not NAME.match(text):
        raise ValueError("a name has at most 63 of the characters A-Z a-z 0-9 _ -")
    return text


def calls(names: list[str]) -> list[str]:
    """Which calls a change becomes, in the order in which they are sent.

    Raises:
        ValueError: not one of ``CALLS``.
    """
    if names in CALLS:
        return names
    if len(set(names)) < len(names):
        found = "names a call twice"
    elif names == ["track"]:
        found = "names no identify, and only Identify carries the trait"
    else:
        found = "names track first, but an event needs a profile that Identify made"
    raise ValueError(f'{found}; write ["identify"] or ["identify", "track"]')


def json_safe(value: Any, *, top: bool = True) -> Any:
    """What can travel in JSON as it is. At the top only switches and tables.

    Raises:
        ValueError: a date, NaN, infinity or an integer of more than 64 bits.
    """
    if isinstance(value, dict):
        return {key: json_safe(inner, top=False) for key, inner in value.items()}
    if isinstance(value, bool):
        return value
    if top:
        raise ValueError("is true, false or a table")
    if isinstance(value, list):
        return [json_safe(inner, top=False) for inner in value]
    whole = isinstance(value, int) and -(2**63) <= value < 2**63
    if isinstance(value, str) or whole or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError("holds a date or a number that JSON does not have")


def plain(value: Any) -> Any:
    """What can be given to a driver as it is written.

    Raises:
        ValueError: a date, which drivers take in forms of their own, or NaN, infinity, …
    """
    return json_safe(value, top=False)


def _text_schema(description: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "description": description, "examples": [*examples]})


Name = Annotated[str, AfterValidator(name)]
Label = Annotated[str, AfterValidator(label)]
Keep = Annotated[
    timedelta,
    from_text(duration(timedelta(hours=1), timedelta(days=3660), "from 1h to ten years")),
    _text_schema("A duration.", "30d", "12w"),
]
Deadline = Annotated[
    timedelta,
    from_text(duration(timedelta(seconds=1), timedelta(seconds=45), "from 1s to 45s")),
    _text_schema("A duration.", "30s"),
]
Timeout = Annotated[
    timedelta,
    from_text(duration(timedelta(seconds=1), timedelta(days=1), "from 1s to 1d")),
    _text_schema("A duration.", "15m"),
]
MaxAge = Annotated[
    timedelta,
    from_text(duration(timedelta(minutes=1), timedelta(days=366), "from 1m to 366d")),
    _text_schema("A duration.", "6h"),
]
Share = Annotated[float, from_text(share(0, 1)), _text_schema("A percentage.", "20%")]
Growth = Annotated[float, from_text(share(0, 1000)), _text_schema("A percentage.", "200%")]
Reserve = Annotated[float, from_text(reserve), _text_schema("A percentage.", "20%")]
Rate = Annotated[float, from_text(rate), _text_schema("Calls per time.", "1000/s", "600/min")]
Quota = Annotated[int, from_text(quota), _text_schema("Calls per day.", "5000/day")]
Size = Annotated[int, from_text(size), _text_schema("Bytes with a unit.", "768MB", "2GB")]
Timezone = Annotated[tzinfo, from_text(timezone), _text_schema("A time zone.", "Europe/Berlin")]
Every = Annotated[
    str,
    from_text(every),
    _text_schema("A duration, a range of durations or a cron line.", "3h", "2h..3h", "0 */3 * * *"),
]
Secret = Annotated[
    str,
    from_text(secret),
    _text_schema("Best from outside the file.", "${SEGMENT_WRITE_KEY}", "${file:/run/secrets/key}"),
]
FilePath = Annotated[
    Path, from_text(path), _text_schema("A path, relative to the file that names it.", "data")
]
StoreUrl = Annotated[
    str,
    from_text(address.store_url),
    _text_schema("A database.", "sqlite:///state.db", "postgresql://user@host/db"),
]
SourceUrl = Annotated[
    str,
    from_text(source_url),
    _text_schema("Any database that SQLAlchemy reaches.", "${WAREHOUSE_URL}"),
]
Plain = Annotated[Any, AfterValidator(plain)]
Endpoint = Annotated[
    str, from_text(address.endpoint), _text_schema("An address.", "https://api.segment.io/v1")
]
Calls = Annotated[
    list[Literal["identify", "track"]],
    Field(min_length=1),
    AfterValidator(calls),
    WithJsonSchema({"enum": [*CALLS]}),
]
Integration = Annotated[
    bool | dict[str, Any],
    PlainValidator(json_safe),
    WithJsonSchema({"type": ["boolean", "object"]}),
]
