"""People that Crisp has before anybody sends anything, out of a file."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from audience_sync.errors import UsageError
from audience_sync.sandbox.crisp_content import EMAIL, Invalid, custom

OF_PERSON = ("nickname", "phone", "avatar", "gender", "address", "description")


@dataclass(frozen=True, kw_only=True, slots=True)
class Existing:
    email: str
    card: Mapping[str, Any]
    data: Mapping[str, Any]


def existing(file: Path) -> list[Existing]:
    """Of a CSV file with a header line, or NDJSON. ``nickname``, ``phone``, ``avatar``, … are of
    the profile, all else that has a value is custom data.

    Raises:
        UsageError: it cannot be read, or Crisp would not have such a person.
    """
    found: dict[str, Existing] = {}
    try:
        for number, row in enumerate(_rows(file), start=1):
            try:
                person = _person(row)
            except Invalid as invalid:
                raise UsageError(f"--people: row {number}: {invalid}") from None
            if found.setdefault(person.email.lower(), person) is not person:
                raise UsageError(f"--people: row {number}: its e-mail stands there twice")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"--people: the file cannot be read ({type(error).__name__})") from None
    return list(found.values())


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        if file.suffix.lower() == ".csv":
            yield from csv.DictReader(lines)
            return
        for line in lines:
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                row = None
            yield row if isinstance(row, dict) else {}


def _person(row: Mapping[str, Any]) -> Existing:
    email = row.get("email")
    if not (isinstance(email, str) and EMAIL.match(email)):
        raise Invalid("no e-mail, or the line cannot be read")
    given = {name: value for name, value in row.items() if value not in (None, "")}
    person = {name: str(given.pop(name)) for name in OF_PERSON if name in given}
    person.setdefault("nickname", email.partition("@")[0])
    del given["email"]
    return Existing(email=email, card={"person": person}, data=custom(given))
