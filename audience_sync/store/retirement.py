"""The last transaction of an audience: nobody is a member, and it is closed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, select, update

from audience_sync.domain.audience import AudienceKey, OnRetire
from audience_sync.pipeline.ports.leases import Lease
from audience_sync.store.engine import Database
from audience_sync.store.gone import UNFINISHED, abandon_unfinished, begun_pairs
from audience_sync.store.ids import known_audience_id
from audience_sync.store.orders import Given, check_not_retired, record
from audience_sync.store.pair import Pair, of_pair
from audience_sync.store.resyncs import request_resync
from audience_sync.store.schema import audience, resync, snapshot, span
from audience_sync.store.snapshots import discard_held
from audience_sync.store.walks import told_points


@dataclass(frozen=True, kw_only=True, slots=True)
class Retirement:
    """A ``pipeline.retire.RetirementBook``, for an order that somebody has given."""

    database: Database
    clock: Callable[[], datetime]
    given: Given

    def retire(
        self, key: AudienceKey, staged: int | None, on_retire: OnRetire, lease: Lease
    ) -> None:
        """Raises UsageError: somebody was quicker."""
        now = self.clock()
        with self.database.write(lease) as connection:
            owner = known_audience_id(connection, key)
            check_not_retired(connection, key)
            # Who leaves is not told anything more, as one who is paused.
            paused_at = now if on_retire is OnRetire.LEAVE else None
            closed = {"retired_at": now, "paused_at": paused_at, "last_error": None}
            if staged is not None:
                row = connection.execute(select(snapshot).where(snapshot.c.id == staged)).one()
                here = update(snapshot).where(snapshot.c.id == staged)
                connection.execute(here.values(state="current", approved_at=now))
                closed["last_captured_at"] = row.captured_at
            connection.execute(update(audience).where(audience.c.id == owner).values(closed))
            discard_held(connection, owner, keep=0)
            for pair in begun_pairs(connection):
                if pair.audience_id == owner:
                    _end_what_is_under_way(connection, pair, on_retire, now)
            about = {"audience_id": owner} | ({"snapshot_id": staged} if staged else {})
            counts = {"on_retire": str(on_retire)}
            record(connection, "retire", self.given, now, counts, outcome="retired", **about)


def _end_what_is_under_way(
    connection: Connection, pair: Pair, on_retire: OnRetire, now: datetime
) -> None:
    """Nobody is told ``true`` any more only to be told ``false`` a little later."""
    if on_retire is OnRetire.LEAVE:
        abandon_unfinished(connection, pair, now)
        connection.execute(delete(resync).where(of_pair(resync, *pair)))
        return
    unfinished = select(span.c.id).where(of_pair(span, *pair), UNFINISHED)
    # What was given up when the two were no longer together was told in part, too.
    in_part = any(row.up_to is not None for row in connection.execute(told_points(pair)))
    if in_part or connection.scalar(unfinished) is not None:
        request_resync(connection, pair, now)
