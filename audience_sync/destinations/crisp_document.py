"""What one member is told, as Crisp keeps it: a profile, custom data, and events.

``email``, ``name``, ``phone`` and ``avatar`` are columns of a profile. Every other trait, and the
``user_id``, are custom data, whose values are strings, numbers and booleans: what Segment calls
null is an empty string here, since a key can be neither null nor removed without replacing all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from audience_sync.domain.audience import VALUE, Kind, Tell, Value
from audience_sync.domain.by_hand import ByHand, CallKind
from audience_sync.domain.contact import EPOCH, ToldColumn, digest, folded
from audience_sync.domain.identify import Computation, last_known
from audience_sync.domain.track import track
from audience_sync.pipeline.ports.sending import Told

KEY = re.compile(r"[a-z0-9_-]+\Z")
EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+\Z")
LONGEST_EMAIL = 254
PROFILE = {"email": "email", "name": "nickname", "phone": "phone", "avatar": "avatar"}
"""Columns of a query, and what Crisp calls them."""

NOTHING = ""
"""Of a computed trait that has no value any more."""

LARGEST = 2**53 - 1
"""Whole numbers beyond it are others to whoever reads JSON as JavaScript does: they are texts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A carried column: its value, never null, and the cycle time at which it was so."""

    value: str | bool | int | float
    at: datetime
    told: ToldColumn


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """All that is told of a member at once."""

    user_id: str
    as_of: datetime
    """The newest cycle time of what is told."""
    traits: Mapping[str, str | bool | int | float] = field(default_factory=dict)
    columns: Mapping[str, Column] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()
    is_exit: bool = False
    """Nothing but that they have left."""
    is_anew: bool = False
    """What Crisp was told already is told once more."""
    is_event: bool = False
    """Nothing but events; for whom nobody was ever identified, they are dropped."""

    @property
    def email(self) -> str | None:
        column = self.columns.get("email")
        return str(column.value) if column else None

    def profile(self) -> Mapping[str, Column]:
        return {name: column for name, column in self.columns.items() if name in PROFILE}

    def custom(self) -> Mapping[str, Column]:
        return {name: column for name, column in self.columns.items() if name not in PROFILE}


def document(told: Sequence[Told], *, salt: str, with_track: bool) -> Document | str:
    """What the changes of one member say together, or why Crisp would refuse it.

    Of a column that several audiences carry, the newest value counts. Who exits carries what was
    last known, which may be older than anything that was told since.
    """
    traits: dict[str, str | bool | int | float] = {}
    columns: dict[str, Column] = {}
    events: list[Mapping[str, Any]] = []
    for one in sorted(told, key=_when):
        computation = _computation(one)
        value = computation.told(one.change)
        if not is_plain(value):
            return unsendable(one.context.audience)
        traits[one.context.audience] = kept(value)
        for name, carried in _carried(one):
            if not KEY.match(name):
                return unusable(name)
            if not is_plain(carried):
                return unsendable(name)
            columns[name] = _column(name, carried, _when(one), salt)
        if with_track and (event := _event(one, computation)):
            events.append(event)
    return Document(
        user_id=told[0].change.user_id,
        traits=traits,
        columns=columns,
        events=events,
        as_of=max(one.context.timestamp for one in told),
        is_exit=all(one.change.kind is Tell.EXITED for one in told),
        is_anew=any(one.context.is_anew for one in told),
    )


def email_of(told: Sequence[Told]) -> str | None:
    """Of ``document``, without all else of it."""
    emails = [
        str(last_known(one.change)["email"])
        for one in sorted(told, key=_when)
        if is_email(last_known(one.change).get("email"))
    ]
    return emails[-1].strip() if emails else None


def document_by_hand(call: ByHand, *, salt: str) -> Document | str:
    """One call that a person makes, or why Crisp would refuse it."""
    for name, value in call.content.items():
        if call.kind is CallKind.IDENTIFY and not KEY.match(name):
            return unusable(name)
        if not is_plain(value):
            return unsendable(name)
    if call.kind is CallKind.TRACK:
        data = {name: kept(value) for name, value in call.content.items()}
        event = {"text": call.event, "data": data}
        return Document(user_id=call.user_id, events=[event], as_of=call.at, is_event=True)
    email = call.content.get("email")
    if email is not None and not is_email(email):
        return "the e-mail is none that Crisp takes"
    columns = {
        name: _column(name, value, call.at, salt)
        for name, value in call.content.items()
        if value is not None
    }
    nulls = [name for name, value in call.content.items() if value is None and name not in PROFILE]
    return Document(
        user_id=call.user_id, traits=dict.fromkeys(nulls, NOTHING), columns=columns, as_of=call.at
    )


def unusable(name: str) -> str:
    shown = name if name.isprintable() else ascii(name)
    return f'the column "{shown}" has more in its name than a-z, 0-9, _ and -'


def unsendable(name: str) -> str:
    return f"a value of {name} that JSON cannot hold (NaN, infinity or half a character)"


def is_plain(value: Value) -> bool:
    """Whether JSON can hold it; not so NaN, infinity and half a character."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)
    return not isinstance(value, float) or math.isfinite(value)


def kept(value: Value) -> str | bool | int | float:
    """As Crisp can keep it."""
    if value is None:
        return NOTHING
    return str(value) if isinstance(value, int) and abs(value) > LARGEST else value


def _when(told: Told) -> datetime:
    """Of what the columns say. An exit's may be of any time before, so all else is newer."""
    return EPOCH if told.change.after is None else told.context.timestamp


def _carried(told: Told) -> Iterator[tuple[str, str | bool | int | float]]:
    for name, value in last_known(told.change).items():
        if name == VALUE and told.context.kind is Kind.COMPUTED_TRAIT:
            continue
        if value is None or (name == "email" and not is_email(value)):
            continue
        if name in PROFILE and not str(value).strip():
            continue
        yield name, value


def is_email(value: Value) -> bool:
    """Whether Crisp could have somebody by it."""
    if not isinstance(value, str) or len(value) > LONGEST_EMAIL:
        return False
    return EMAIL.match(value.strip()) is not None


def _column(name: str, value: str | bool | int | float, at: datetime, salt: str) -> Column:
    told = str(value).strip() if name in PROFILE else kept(value)
    compared = folded(str(told)) if name == "email" else told
    return Column(value=told, at=at, told=ToldColumn(digest(salt, name, compared), at))


def _computation(told: Told) -> Computation:
    context = told.context
    return Computation(key=context.audience, kind=context.kind, installation=context.installation)


def _event(told: Told, computation: Computation) -> Mapping[str, Any] | None:
    """Crisp's event has a text and data; that it happened now is all that it says of the time."""
    call = track(told.change, computation, timestamp=told.context.timestamp, integrations={})
    if call is None:
        return None
    data = {key: kept(value) for key, value in call["properties"].items()}
    return {"text": call["event"], "data": data}
