"""A request and its answer, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

import orjson

JSON = "application/json; charset=utf-8"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """``path``: as it came, with its query. ``segments``: of the path, each percent-decoded by
    itself. ``headers``: in lower case."""

    method: str
    path: str
    segments: tuple[str, ...]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """``reason``: in a word or two what became of the request; empty: nothing to tell."""

    status: int
    reason: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_refusal(self) -> bool:
        return self.status >= 400


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def segments_of(raw_path: bytes) -> tuple[str, ...]:
    """An encoded slash belongs to its segment: ``/a%2Fb/c`` is ``("a/b", "c")``."""
    path = raw_path.decode("ascii", "replace").strip("/")
    return tuple(unquote(segment) for segment in path.split("/")) if path else ()


def query_of(raw_query: bytes) -> dict[str, str]:
    return dict(parse_qsl(raw_query.decode("ascii", "replace"), keep_blank_values=True))


def encoded(value: Any) -> bytes:
    return orjson.dumps(value)
