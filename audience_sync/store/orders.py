"""What a person orders: pause, resume, resync, tell rejections again. All kept in the history.

None of it needs a lease: a walk under way notices after its next commit, and nobody else writes
these columns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from audience_sync.domain.audience import AudienceKey, Kind, Known, Seq
from audience_sync.errors import UsageError
from audience_sync.store.engine import Database
from audience_sync.store.gone import begun_pairs
from audience_sync.store.ids import audience_id, destination_id, known_audience_id
from audience_sync.store.pair import Pair
from audience_sync.store.rejections import Rejections
from audience_sync.store.resyncs import request_resync
from audience_sync.store.schema import audience, destination, run
from audience_sync.store.waiting import newest_snapshots


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """Who gave an order, and why."""

    actor: str
    reason: str | None = None


class Orders:
    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._rejections = Rejections(database)

    def known(self) -> dict[AudienceKey, Known]:
        """Every audience that was ever captured, or tried to be."""
        newest = newest_snapshots()
        query = select(audience, newest.c.seq, newest.c.members).outerjoin(
            newest, newest.c.audience_id == audience.c.id
        )
        with self._database.read() as connection:
            told_to: dict[AudienceKey, set[str]] = {}
            for key, name in begun_pairs(connection).values():
                told_to.setdefault(key, set()).add(name)
            rows = connection.execute(query).all()
        return {
            row.key: Known(
                key=AudienceKey(row.key),
                name=row.name,
                kind=Kind(row.kind),
                seq=Seq(row.seq or 0),
                members=row.members or 0,
                paused_at=row.paused_at,
                retired_at=row.retired_at,
                told_to=frozenset(told_to.get(row.key, ())),
            )
            for row in rows
        }

    def stopped(self) -> dict[str, datetime]:
        """Destinations that a person has paused, and since when."""
        query = select(destination.c.name, destination.c.stopped_at)
        with self._database.read() as connection:
            rows = connection.execute(query.where(destination.c.stopped_at.is_not(None))).all()
        return {row.name: row.stopped_at for row in rows}

    def pause(self, key: AudienceKey, name: str, kind: Kind, given: Given) -> None:
        """Neither capture nor tell the audience until it is resumed.

        Raises:
            UsageError: it is retired.
        """
        now = self._clock()
        with self._database.write() as connection:
            owner = audience_id(connection, key, name, kind)
            check_not_retired(connection, key)
            here = update(audience).where(audience.c.id == owner)
            connection.execute(here.values(paused_at=now))
            self._record(connection, "pause", given, audience_id=owner)

    def resume(self, key: AudienceKey, given: Given) -> None:
        """Raises UsageError: it is retired."""
        with self._database.write() as connection:
            owner = known_audience_id(connection, key)
            check_not_retired(connection, key)
            here = update(audience).where(audience.c.id == owner)
            connection.execute(here.values(paused_at=None))
            self._record(connection, "resume", given, audience_id=owner)

    def stop(self, name: str, given: Given) -> None:
        """Send nothing to the destination until it is resumed."""
        with self._database.write() as connection:
            place = destination_id(connection, name)
            here = update(destination).where(destination.c.id == place)
            connection.execute(here.values(stopped_at=self._clock()))
            self._record(connection, "pause", given, destination_id=place)

    def go_on(self, name: str, given: Given) -> None:
        """Send again; an automatic pause ends as well."""
        nothing = dict.fromkeys(("stopped_at", "paused_reason", "paused_since", "paused_until"))
        with self._database.write() as connection:
            place = destination_id(connection, name)
            connection.execute(update(destination).where(destination.c.id == place).values(nothing))
            self._record(connection, "resume", given, destination_id=place)

    def resync(self, key: AudienceKey, destinations: Collection[str], given: Given) -> list[str]:
        """Have everybody's state told anew after the next capture, which is due now.

        Returns:
            The destinations that are told anew: those of which anything was told.

        Raises:
            UsageError: it is retired.
        """
        now = self._clock()
        with self._database.write() as connection:
            owner = known_audience_id(connection, key)
            check_not_retired(connection, key)
            pairs = self._begun(connection, owner, destinations)
            for pair in pairs.values():
                request_resync(connection, pair, now)
            if pairs:
                counts = {"destinations": sorted(pairs)}
                self._record(connection, "resync", given, counts, audience_id=owner)
        return sorted(pairs)

    def retry(
        self, keys: Collection[AudienceKey], destinations: Collection[str], given: Given
    ) -> int:
        """Have those who stand rejected or skipped told again by the next run; how many."""
        now = self._clock()
        with self._database.write() as connection:
            count = self._rejections.retry(connection, keys, destinations, now)
            if count:
                self._record(connection, "retry", given, {"members": count})
        return count

    def sent(self, name: str, kind: str, given: Given) -> None:
        """A call made by hand; of whom is not written down."""
        with self._database.write() as connection:
            place = destination_id(connection, name)
            self._record(connection, f"send {kind}", given, destination_id=place)

    def _begun(
        self, connection: Connection, owner: int, destinations: Collection[str]
    ) -> Mapping[str, Pair]:
        return {
            name: pair
            for pair, (_, name) in begun_pairs(connection).items()
            if pair.audience_id == owner and name in destinations
        }

    def _record(
        self,
        connection: Connection,
        kind: str,
        given: Given,
        counts: Mapping[str, Any] | None = None,
        **about: int,
    ) -> None:
        record(connection, kind, given, self._clock(), counts, outcome="ordered", **about)


def check_not_retired(connection: Connection, key: AudienceKey) -> None:
    """Raises UsageError; the row stays locked, so that nobody retires it meanwhile."""
    query = select(audience.c.retired_at).where(audience.c.key == key).with_for_update()
    if connection.scalar(query) is not None:
        raise UsageError(f"{key} is retired")


def record(
    connection: Connection,
    kind: str,
    given: Given,
    now: datetime,
    counts: Mapping[str, Any] | None = None,
    *,
    outcome: str = "ordered",
    **about: int,
) -> None:
    """Write an order into the history.

    Args:
        about: ``audience_id``, ``destination_id``, ``snapshot_id``.
    """
    values = {"kind": kind, "outcome": outcome, "actor": given.actor}
    times = {"started_at": now, "ended_at": now}
    counts = {"reason": given.reason, **(counts or {})}
    connection.execute(insert(run).values(**values, **times, **about, counts=counts))
