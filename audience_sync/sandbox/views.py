"""What the pages show, as plain values: lists in pages, people that match, bars of a chart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, Generic, TypeVar

import orjson

from audience_sync.sandbox.journal import Minute
from audience_sync.sandbox.people import Person
from audience_sync.sandbox.users import User

PER_PAGE = 25
LONGEST_TEXT = 300
"""Characters of a value that are shown."""

LONGEST_NAME = 100

HEIGHT = 120
STEP = 10
WIDTH = 8

WEBSITE = re.compile(r"^website/([^/]{8})[^/]+")

T = TypeVar("T")
Pairs = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed(Generic[T]):
    """One page of a list; ``page`` counts from 1."""

    items: Sequence[T]
    page: int
    pages: int
    total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Someone:
    """A person of Crisp or a user of Segment. ``place`` says which."""

    id: str
    name: str
    email: str
    place: str
    profile: Pairs
    traits: Pairs
    events: Sequence[tuple[str, Pairs]]
    event_count: int
    updated_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    kind: str
    x: int
    y: float
    width: int
    height: float
    title: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    width: int
    height: int
    lines: Sequence[float]
    bars: Sequence[Bar]
    summary: str


def listed(items: Sequence[T], page: int, *, per_page: int = PER_PAGE) -> Listed[T]:
    """``page`` is taken for the nearest that there is."""
    pages = max(1, -(-len(items) // per_page))
    page = min(max(page, 1), pages)
    start = (page - 1) * per_page
    return Listed(items=items[start : start + per_page], page=page, pages=pages, total=len(items))


def matching(found: Iterable[Person | User], query: str) -> list[Person | User]:
    """Those of whom an id, a name, an e-mail or the text of a trait contains ``query``, in either
    case; and, of ``key=value``, those who have that trait."""
    wanted = query.strip().casefold()
    key, equals, value = wanted.partition("=")

    def is_meant(one: Person | User) -> bool:
        if any(wanted in word.casefold() for word in _words(one)):
            return True
        if not equals:
            return False
        traits = _traits(one).items()
        return any(k.casefold() == key and text(v).casefold() == value for k, v in traits)

    return [one for one in found if not wanted or is_meant(one)]


def _traits(one: Person | User) -> Mapping[str, Any]:
    return one.traits if isinstance(one, User) else one.data


def _words(one: Person | User) -> Iterator[str]:
    texts = (value for value in _traits(one).values() if isinstance(value, str))
    if isinstance(one, User):
        return chain((one.user_id,), texts)
    return chain((one.people_id, one.email, one.nickname), texts)


def someone(found: Person | User) -> Someone:
    return _user(found) if isinstance(found, User) else _person(found)


def _person(found: Person) -> Someone:
    of_person = found.card.get("person", {})
    profile = {k: v for k, v in of_person.items() if k != "nickname"}
    profile |= {k: v for k, v in found.card.items() if k != "person"}
    return Someone(
        id=found.people_id,
        name=shortened(found.nickname, LONGEST_NAME),
        email=found.email,
        place="Crisp",
        profile=pairs(profile),
        traits=pairs(found.data),
        events=[(str(e["text"]), pairs(e.get("data", {}))) for e in reversed(found.events)],
        event_count=found.event_count,
        updated_at=found.updated_at,
    )


def _user(found: User) -> Someone:
    traits = {k: v for k, v in found.traits.items() if k not in ("email", "name")}
    return Someone(
        id=found.user_id,
        name=shortened(text(found.traits.get("name", "")), LONGEST_NAME),
        email=found.email,
        place="Segment",
        profile=[],
        traits=pairs(traits),
        events=[(e["event"], pairs(e["properties"])) for e in reversed(found.events)],
        event_count=found.event_count,
        updated_at=found.updated_at,
    )


def pairs(values: Mapping[str, Any]) -> Pairs:
    """An empty text as JSON: one sees that it is there."""
    return [(name, text(value) or '""') for name, value in values.items()]


def text(value: Any) -> str:
    """As JSON, but a text as it is; cut when long."""
    whole = value if isinstance(value, str) else orjson.dumps(value).decode()
    return shortened(whole, LONGEST_TEXT)


def shortened(whole: str, longest: int) -> str:
    return whole if len(whole) <= longest else whole[: longest - 1] + "…"


def brief(path: str) -> str:
    """A path without what is the same in all: the version, and most of a website's id."""
    return WEBSITE.sub(r"website/\1…", path.removeprefix("/v1/"))


def chart(minutes: Sequence[tuple[datetime, Minute]]) -> Chart:
    """A bar for each minute, refusals on top."""
    most = max((m.accepted + m.refused for _, m in minutes), default=0)
    scale = HEIGHT / most if most else 0.0
    bars = chain.from_iterable(
        _bars(number * STEP, at, minute, scale) for number, (at, minute) in enumerate(minutes)
    )
    return Chart(
        width=len(minutes) * STEP,
        height=HEIGHT,
        lines=[round(HEIGHT * part / 4, 1) for part in (1, 2, 3)],
        bars=list(bars),
        summary=_summary(minutes, most),
    )


def _bars(x: int, at: datetime, minute: Minute, scale: float) -> Iterator[Bar]:
    y = float(HEIGHT)
    title = f"{at:%H:%M} UTC: {minute.accepted:,} answered, {minute.refused:,} refused or failed"
    for kind, number in (("accepted", minute.accepted), ("refused", minute.refused)):
        if number:
            height = number * scale
            y -= height
            yield Bar(
                kind=kind, x=x + 1, y=round(y, 2), width=WIDTH, height=round(height, 2), title=title
            )


def _summary(minutes: Sequence[tuple[datetime, Minute]], most: int) -> str:
    accepted = sum(minute.accepted for _, minute in minutes)
    refused = sum(minute.refused for _, minute in minutes)
    until = f"{minutes[-1][0]:%H:%M} UTC" if minutes else "now"
    return (
        f"{len(minutes)} minutes until {until}: {accepted:,} answered, "
        f"{refused:,} refused or failed, at most {most:,} in a minute"
    )
