"""One call that a person makes, as Segment's libraries would: identify or track."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from audience_sync.domain.audience import Value
from audience_sync.domain.identify import envelope

PLAIN = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?\Z|true\Z|false\Z|null\Z")
"""What is a JSON number or word, and not text, when nobody says otherwise."""

EXACT_DIGITS = 15
"""Of a number, which a JSON number surely holds as they are."""

TEXT_KEYS = frozenset({"email", "name", "firstName", "lastName", "phone", "avatar", "username"})
"""Reserved traits of Segment's spec that are text whatever they look like."""


class CallKind(StrEnum):
    IDENTIFY = "identify"
    TRACK = "track"


@dataclass(frozen=True, kw_only=True, slots=True)
class ByHand:
    """``content``: the traits of an Identify call, the properties of a Track call."""

    kind: CallKind
    user_id: str
    content: Mapping[str, Value]
    event: str = ""
    at: datetime

    def body(self, integrations: dict[str, Any]) -> dict[str, Any]:
        """The call without ``messageId`` and ``sentAt``."""
        content: dict[str, Any] = {"traits": dict(self.content)}
        if self.kind is CallKind.TRACK:
            content = {"event": self.event, "properties": dict(self.content)}
        body = {"type": str(self.kind), "userId": self.user_id}
        return body | content | envelope({}, self.at, integrations)


def parse_pair(text: str) -> tuple[str, Value]:
    """``plan=pro`` is text; ``revenue=39.95`` and ``vip=true`` are what they look like; and
    ``KEY:=JSON`` says it outright, so ``zip:="01234"`` stays text. So does a number of so many
    digits that it would be another one to whoever reads it, as of an order.

    Raises:
        ValueError: no key, no ``=``, or not JSON.
    """
    key, equals, value = text.partition("=")
    outright = key.endswith(":")
    key = key.removesuffix(":")
    if not equals or not key:
        raise ValueError("write KEY=VALUE, or KEY:=JSON")
    if outright:
        return key, _of_json(key, value)
    if not PLAIN.match(value) or key in TEXT_KEYS or sum(map(str.isdigit, value)) > EXACT_DIGITS:
        return key, value
    return key, _of_json(key, value)


def _of_json(key: str, text: str) -> Value:
    try:
        value = json.loads(text)
    except ValueError:
        wanted = "JSON, such as 39.95, true or a text in quotes"
        raise ValueError(f"after {key}:= stands {wanted}") from None
    if not isinstance(value, str | int | float | bool | None):
        raise ValueError(f"{key}: a value is text, a number, true, false or null")
    return value
