"""The newest events of everybody, in either API."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

KEPT = 2_000
"""The oldest are dropped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Happened:
    at: datetime
    api: str
    who: str
    name: str
    properties: Mapping[str, Any]


class Events:
    def __init__(self) -> None:
        self.newest: deque[Happened] = deque(maxlen=KEPT)
        self.total = 0

    def add(self, happened: Happened) -> None:
        self.newest.append(happened)
        self.total += 1
