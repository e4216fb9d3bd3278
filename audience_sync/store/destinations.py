"""What the store knows of destinations: pauses, and the record of delivery runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from audience_sync.domain.quota import Lane
from audience_sync.pipeline.ports.delivering import Pause
from audience_sync.pipeline.ports.leases import Lease
from audience_sync.store.engine import Database
from audience_sync.store.ids import destination_id
from audience_sync.store.schema import destination, run


class Destinations:
    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def settle(self, name: str, place: str) -> bool:
        """Make ``name`` mean what was told at ``place``; whether it meant another place before.

        A place that was never told anything starts with initial deliveries; one that comes back
        goes on where it stopped. What another place was told is kept aside for it.
        """
        row = self._row(name)
        if row is not None and row.place == place:
            return False
        with self._database.write() as connection:
            destination_id(connection, name)
            query = select(destination).where(destination.c.name == name).with_for_update()
            row = connection.execute(query).one()
            if row.place not in (None, place):
                _rename(connection, row.name, _aside(name, row.place))
                _rename(connection, _aside(name, place), name)
                destination_id(connection, name)
            connection.execute(
                update(destination).where(destination.c.name == name).values(place=place)
            )
        return row.place not in (None, place)

    def stored_as(self, name: str, place: str) -> str:
        """The name under which what was told at ``place`` is stored, before ``settle``."""
        row = self._row(name)
        settled = row is None or row.place in (None, place)
        return name if settled else _aside(name, place)

    def _row(self, name: str) -> Row[Any] | None:
        query = select(destination).where(destination.c.name == name)
        with self._database.read() as connection:
            return connection.execute(query).one_or_none()

    def paused(self, name: str) -> Pause | None:
        row = self._row(name)
        if row is None or row.paused_reason is None:
            return None
        return Pause(reason=row.paused_reason, since=row.paused_since, until=row.paused_until)

    def pause(self, name: str, reason: str, seconds: float, lease: Lease) -> None:
        """Pause; a pause that is renewed keeps its beginning."""
        now = self._clock()
        until = now + timedelta(seconds=seconds) if seconds > 0 else None
        since = getattr(self.paused(name), "since", now)
        self._set(
            name, {"paused_reason": reason, "paused_since": since, "paused_until": until}, lease
        )

    def resume(self, name: str, lease: Lease) -> None:
        nothing = {"paused_reason": None, "paused_since": None, "paused_until": None}
        self._set(name, nothing, lease)

    def _set(self, name: str, values: dict[str, Any], lease: Lease) -> None:
        with self._database.write(lease) as connection:
            row_id = destination_id(connection, name)
            connection.execute(update(destination).where(destination.c.id == row_id).values(values))

    def start_run(self, name: str, lane: Lane, lease: Lease) -> int:
        """Record that a delivery run began; runs that never ended were killed."""
        with self._database.write(lease) as connection:
            row_id = destination_id(connection, name)
            of_lane = run.c.destination_id == row_id, run.c.lane == str(lane)
            connection.execute(
                update(run)
                .where(*of_lane, run.c.ended_at.is_(None))
                .values(outcome="killed", ended_at=self._clock())
            )
            made = connection.execute(
                insert(run).values(
                    kind="delivery",
                    destination_id=row_id,
                    lane=str(lane),
                    started_at=self._clock(),
                    outcome="running",
                    counts={},
                )
            )
            assert made.inserted_primary_key is not None
            return int(made.inserted_primary_key[0])

    def end_run(
        self, run_id: int, outcome: str, counts: dict[str, int], error: str | None, lease: Lease
    ) -> None:
        ended = {"outcome": outcome, "counts": counts, "error": error, "ended_at": self._clock()}
        with self._database.write(lease) as connection:
            connection.execute(update(run).where(run.c.id == run_id).values(ended))


def _aside(name: str, place: str) -> str:
    return f"{name} at {place}"


def _rename(connection: Connection, old: str, new: str) -> None:
    connection.execute(update(destination).where(destination.c.name == old).values(name=new))
