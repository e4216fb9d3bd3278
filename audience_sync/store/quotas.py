"""Daily quotas: what the lanes of each destination reserved of a day, before they sent it.

A process that is killed has used what it reserved, so a restart forgets nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, select, update

from audience_sync.domain.quota import Lane, quota_left
from audience_sync.pipeline.ports.leases import Lease
from audience_sync.store.engine import Database, insert_missing
from audience_sync.store.ids import destination_id
from audience_sync.store.schema import destination, quota

KEEP_DAYS = 32


class Quotas:
    """See ``pipeline.ports.Quotas``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def used(self, destination_name: str, day: date) -> Mapping[Lane, int]:
        return self.of_day(day).get(destination_name, {})

    def of_day(self, day: date) -> dict[str, dict[Lane, int]]:
        """By destination and lane; those that used nothing are not in it."""
        query = (
            select(destination.c.name, quota.c.lane, quota.c.reserved)
            .join(destination, destination.c.id == quota.c.destination_id)
            .where(quota.c.day == day)
        )
        found: dict[str, dict[Lane, int]] = {}
        with self._database.read() as connection:
            for row in connection.execute(query):
                found.setdefault(row.name, {})[Lane(row.lane)] = row.reserved
        return found

    def reserve(
        self,
        destination_name: str,
        lane: Lane,
        day: date,
        amount: int,
        *,
        quota: int,
        reserve: float,
        lease: Lease,
    ) -> int:
        with self._database.write(lease) as connection:
            owner = _locked(connection, destination_name)
            used = _used(connection, owner, day)
            granted = min(amount, quota_left(lane, quota=quota, reserve=reserve, used=used))
            if granted:
                if lane not in used:
                    _begin(connection, owner, day, lane)
                _add(connection, owner, day, lane, granted)
        return granted

    def give_back(
        self, destination_name: str, lane: Lane, day: date, amount: int, lease: Lease
    ) -> None:
        with self._database.write(lease) as connection:
            owner = destination_id(connection, destination_name)
            _add(connection, owner, day, lane, -amount)


def _locked(connection: Connection, name: str) -> int:
    """The destination's row. PostgreSQL lets both lanes write at once, each under its own lease,
    so whoever reserves for one waits here for the other."""
    owner = destination_id(connection, name)
    row = select(destination.c.id).where(destination.c.id == owner)
    connection.execute(row.with_for_update(key_share=True))
    return owner


def _used(connection: Connection, owner: int, day: date) -> dict[Lane, int]:
    query = select(quota.c.lane, quota.c.reserved).where(
        quota.c.destination_id == owner, quota.c.day == day
    )
    return {Lane(row.lane): row.reserved for row in connection.execute(query)}


def _begin(connection: Connection, owner: int, day: date, lane: Lane) -> None:
    """The lane's first of a day; what is of no use any more goes with it."""
    of_lane: dict[str, Any] = {"destination_id": owner, "day": day, "lane": str(lane)}
    insert_missing(connection, quota, {**of_lane, "reserved": 0})
    too_old = quota.c.day < day - timedelta(days=KEEP_DAYS)
    # A clock that is a year ahead for a moment must not let us forget what was used today.
    other = select(quota.c.day).where(quota.c.destination_id == owner, quota.c.day < day)
    last = other.order_by(quota.c.day.desc()).limit(1).scalar_subquery()
    connection.execute(
        delete(quota).where(quota.c.destination_id == owner, too_old, quota.c.day < last)
    )


def _add(connection: Connection, owner: int, day: date, lane: Lane, amount: int) -> None:
    of_lane: tuple[ColumnElement[bool], ...] = (
        quota.c.destination_id == owner,
        quota.c.day == day,
        quota.c.lane == lane,
    )
    connection.execute(update(quota).where(*of_lane).values(reserved=quota.c.reserved + amount))
