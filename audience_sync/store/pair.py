"""An audience and a destination: what is told is told between two of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Table, and_


class Pair(NamedTuple):
    """By their rows."""

    audience_id: int
    destination_id: int


def of_pair(table: Table, audience_id: Any, destination_id: Any) -> ColumnElement[bool]:
    """The rows of ``table`` for an audience and a destination, given as numbers or columns."""
    return and_(table.c.audience_id == audience_id, table.c.destination_id == destination_id)
