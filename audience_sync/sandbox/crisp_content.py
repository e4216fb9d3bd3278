"""What Crisp takes in the body of a request (docs.crisp.chat, REST API reference v1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+\Z")
KEY = re.compile(r"[a-z0-9_-]+\Z")
COLORS = frozenset(
    ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "grey", "black")
)
LONGEST = 500
"""Characters of an e-mail, a nickname and so on; Crisp documents no limit."""

LARGEST_VALUE = 10_000
"""Characters of one value of custom data; Crisp documents no limit."""


class Invalid(Exception):
    """``str`` says what, for the page; Crisp itself says no more than ``invalid_data``."""


Content = dict[str, Any]


def content(body: bytes) -> Content:
    """
    Raises:
        Invalid: not a JSON object.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Invalid("the body is not JSON") from None
    if not isinstance(value, dict):
        raise Invalid("the body is not an object")
    return value


def profile(body: bytes, *, creates: bool) -> tuple[str | None, Content]:
    """The e-mail, and the rest of a profile.

    Raises:
        Invalid: what Crisp refuses, and what it might ignore.
    """
    given = content(body)
    _known(given, CARD, "a profile")
    email = given.pop("email", None)
    if email is None and creates:
        raise Invalid("email is required")
    if email is not None and not (_text(email) and EMAIL.match(email)):
        raise Invalid("email is not an e-mail")
    person = given.get("person", {})
    if isinstance(person, dict):
        _known(person, PERSON, "person")
    if creates and not (isinstance(person, dict) and person.get("nickname")):
        raise Invalid("person.nickname is required")
    return email, given


def data(body: bytes) -> dict[str, Any]:
    """Custom data out of its wrapper.

    Raises:
        Invalid: sent flat, or a key or value that Crisp refuses.
    """
    given = content(body)
    if set(given) != {"data"}:
        raise Invalid('custom data is to be sent as {"data": {…}}')
    return custom(given["data"])


def custom(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise Invalid("data is not an object")
    for key, value in given.items():
        if not KEY.match(key):
            raise Invalid(f"the key {shown(key)} has more than a-z, 0-9, _ and -")
        if not isinstance(value, str | int | float | bool):
            raise Invalid(f"the value of {shown(key)} is no string, number or boolean")
        if isinstance(value, str) and len(value) > LARGEST_VALUE:
            raise Invalid(f"the value of {shown(key)} has {len(value):,} characters")
    return given


def event(body: bytes) -> Content:
    """
    Raises:
        Invalid: no text, a colour that Crisp has not, or anything else.
    """
    given = content(body)
    _known(given, EVENT, "an event")
    if not given.get("text"):
        raise Invalid("text is required")
    return given


def batch(body: bytes, most: int) -> tuple[list[str], dict[str, Any]]:
    """Whom, and what.

    Raises:
        Invalid: not of the form, or more than ``most`` people.
    """
    given = content(body)
    people = given.get("people")
    if set(given) != {"people", "data"} or not isinstance(people, dict):
        raise Invalid('a batch is {"people": {"profiles": […]}, "data": {…}}')
    whom = people.get("profiles")
    if set(people) != {"profiles"} or not isinstance(whom, list) or not whom:
        raise Invalid("people.profiles is not a list of people_ids")
    if not all(isinstance(people_id, str) for people_id in whom):
        raise Invalid("people.profiles is not a list of people_ids")
    if len(whom) > most:
        raise Invalid(f"people.profiles has {len(whom):,} (this sandbox takes {most:,})")
    return whom, custom(given["data"])


def shown(text: str) -> str:
    """Cut when long."""
    return repr(text if len(text) <= 60 else text[:59] + "…")


def _known(given: Mapping[str, Any], kinds: Mapping[str, Callable[[Any], bool]], of: str) -> None:
    for name, value in given.items():
        kind = kinds.get(name)
        if kind is None:
            raise Invalid(f"{of} has no {shown(name)}")
        if not kind(value):
            raise Invalid(f"{name} is not what Crisp takes there")


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(_text(item) for item in value)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _color(value: Any) -> bool:
    return isinstance(value, str) and value in COLORS


CARD: dict[str, Callable[[Any], bool]] = {
    "email": lambda value: True,  # by itself, as its absence
    "person": _object,
    "company": _object,
    "segments": _texts,
    "notepad": _text,
    "active": _number,
}
PERSON: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(
        ("nickname", "avatar", "gender", "phone", "address", "description", "website"), _text
    ),
    "timezone": _number,
    "profiles": lambda value: isinstance(value, list),
    "employment": _object,
    "geolocation": _object,
    "locales": _texts,
}
EVENT: dict[str, Callable[[Any], bool]] = {
    "text": _text,
    "data": _object,
    "color": _color,
}
