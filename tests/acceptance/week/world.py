"""Who is in which audience at any time of the week, known without asking the program.

Memberships are spells with a beginning and an end. Sources hold all of them from the start, and
queries pick those that cover ``:now``; so what a capture must find follows from its time alone.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]
Members = dict[str, Row]
"""By user id."""

FOREVER = datetime(2999, 1, 1, tzinfo=UTC).timestamp()
COVERS = "CAST(since AS {time}) <= :now AND CAST(until AS {time}) > :now"
TABLE = """
CREATE TABLE IF NOT EXISTS spell (
    audience text, user_id text, email text, tier text, value bigint,
    since timestamptz, until timestamptz
)
"""
PRIVATE = "private.example"
"""Of every e-mail; in no log line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spell:
    """``user_id`` is a member with this ``row`` from ``since`` until before ``until``."""

    user_id: str
    row: Row
    since: float
    until: float = FOREVER

    def changed(self, at: float, row: Row) -> list[Spell]:
        return [replace(self, until=at), replace(self, since=at, row=row)]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One audience of the week.

    Args:
        kept: ``sql``, ``csv`` or ``parquet``.
        shortest, longest: seconds of the cadence ``every``.
        columns: carried ones.
        comes: when it comes into the configuration: 0 before the daemons start, 1 when the week
            begins, 2 later. Nothing changes in those of 0.
        moves: the share of members who may leave; some more than those come.
    """

    key: str
    kept: str
    every: str
    shortest: float
    longest: float
    destinations: tuple[str, ...]
    members: int
    columns: tuple[str, ...] = ("email",)
    comes: int = 1
    moves: float = 0.2
    spells: list[Spell] = field(default_factory=list)

    @property
    def is_trait(self) -> bool:
        return self.columns == ("value",)

    @property
    def tell(self) -> set[str]:
        updates = {"updated"} if "tier" in self.columns or self.is_trait else set()
        return {"entered", "exited"} | updates

    def members_at(self, time: datetime) -> Members:
        now = time.timestamp()
        return {s.user_id: s.row for s in self.spells if s.since <= now < s.until}

    def query(self) -> str:
        columns = ", ".join(("user_id", *self.columns))
        if self.kept == "sql":
            where = f"audience = '{self.key}' AND " + COVERS.format(time="timestamptz")
            return f"SELECT {columns} FROM spell WHERE {where}"
        covers = COVERS.format(time="TIMESTAMPTZ")
        return f"SELECT {columns} FROM '{self.key}.{self.kept}' WHERE {covers}"


def live(planned: Planned, draw: random.Random, begin: float, seconds: float) -> None:
    """Fill in spells: most stay, some leave, some come, some of them again and again.

    Fewer leave than there are at the beginning: that much the guard lets go.
    """
    if planned.comes == 0:
        seconds = 0.0  # all of it before the daemons start

    def moment(after: float = begin) -> float:
        return round(draw.uniform(after, begin + seconds), 3)

    for number in range(round(planned.members * (1 + planned.moves * 5 / 4))):
        user_id = f"person-{number:06}"
        spell = Spell(user_id=user_id, row=_row(planned, user_id, draw), since=begin - 86_400)
        if number >= planned.members:
            spell = replace(spell, since=moment())
        if number >= planned.members * (1 - planned.moves) and draw.random() < 0.6:
            spell = replace(spell, until=moment(spell.since if spell.since > begin else begin))
        spells = [spell]
        if spell.until < FOREVER and draw.random() < 0.5:
            back = moment(spell.until)
            spells.append(Spell(user_id=user_id, row=_row(planned, user_id, draw), since=back))
        elif planned.columns != ("email",) and draw.random() < 0.2:
            at = moment(max(spell.since, begin))
            if spell.since < at < spell.until:
                spells = spell.changed(at, _row(planned, user_id, draw))
        planned.spells.extend(s for s in spells if s.since < s.until)


def _row(planned: Planned, user_id: str, draw: random.Random) -> Row:
    values = {
        "email": f"{user_id}@{PRIVATE}",
        "tier": draw.choice(("bronze", "silver", "gold", "platinum")),
        "value": draw.randint(1, 10_000),
    }
    return {column: values[column] for column in planned.columns}


def write_sources(audiences: Iterable[Planned], folder: Path, conninfo: str) -> None:
    """CSV and Parquet files in ``folder``, or rows in the table ``spell`` of PostgreSQL."""
    folder.mkdir(exist_ok=True)
    names = ("audience", "user_id", "email", "tier", "value", "since", "until")
    into = f"COPY spell ({', '.join(names)}) FROM STDIN"
    with psycopg.connect(conninfo) as connection, connection.cursor() as cursor:
        cursor.execute(TABLE)
        with cursor.copy(into) as copy:
            for planned in audiences:
                if planned.kept != "sql":
                    _write_file(planned, folder)
                    continue
                for row in _rows(planned):
                    full = {"audience": planned.key} | row
                    copy.write_row([full.get(name) for name in names])
        cursor.execute("ANALYZE spell")


def _write_file(planned: Planned, folder: Path) -> None:
    rows, path = list(_rows(planned)), folder / f"{planned.key}.{planned.kept}"
    if planned.kept == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(row | {name: row[name].isoformat() for name in ("since", "until")})


def _rows(planned: Planned) -> Iterator[Row]:
    for spell in planned.spells:
        since, until = (datetime.fromtimestamp(t, UTC) for t in (spell.since, spell.until))
        yield {"user_id": spell.user_id, **spell.row, "since": since, "until": until}


def told(planned: Planned, before: Members, after: Members) -> dict[str, Row]:
    """What a destination must hear of the way from ``before`` to ``after``: traits by user id."""
    said: dict[str, Row] = {}
    for user_id in before.keys() | after.keys():
        was, now = before.get(user_id), after.get(user_id)
        change = "entered" if was is None else "exited" if now is None else "updated"
        if was != now and change in planned.tell:
            said[user_id] = traits(planned, was, now)
    return said


def traits(planned: Planned, was: Row | None, now: Row | None) -> Row:
    """Of one call: the columns, one who leaves with the last known ones, and the trait itself."""
    if planned.is_trait:
        return {planned.key: now["value"] if now else None}
    return {**(now or was or {}), planned.key: now is not None}
