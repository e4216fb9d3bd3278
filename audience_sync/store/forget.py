"""Take a few users out of everything that is stored (P21).

One transaction does it, under the leases of everybody who could write or read them meanwhile: so
they are forgotten or they are not, wherever the process is killed. Only the database's files are
cleaned after it, and that can be done again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, select, update

from audience_sync.domain.audience import AudienceKey
from audience_sync.domain.forgotten import without_names
from audience_sync.errors import LeaseTaken, StoreFailed, UsageError
from audience_sync.pipeline.ports.leases import Lease
from audience_sync.store import contacts
from audience_sync.store.engine import Database
from audience_sync.store.forget_log import rewrite
from audience_sync.store.forget_spans import SpanChange, changed_spans, open_spans
from audience_sync.store.forgotten import remember
from audience_sync.store.leases import Leases
from audience_sync.store.orders import Given, record
from audience_sync.store.schema import audience, rejection, run, snapshot, span
from audience_sync.store.snapshots import Snapshots
from audience_sync.store.standstill import CAPTURE, HINT, captures, hold
from audience_sync.store.traces import Traces, find, named_in_orders


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """Who is to be forgotten, and who says so. ``typed``: what people call them, e-mails too."""

    user_ids: Sequence[str]
    given: Given
    typed: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        return [*self.user_ids, *self.typed]


class Forgetting:
    """Forgets users in one store."""

    def __init__(self, database: Database, leases: Leases, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._leases = leases
        self._clock = clock

    def find(self, user_ids: Collection[str]) -> Traces:
        return find(self._database, user_ids)

    def forget(self, order: Order, configured: Collection[AudienceKey] = ()) -> Traces:
        """Remove every trace, and remember only references, so that nobody comes back.

        Args:
            configured: audiences that may be captured for the first time right now.

        Returns:
            What there was.

        Raises:
            LeaseTaken: a capture goes on, or a delivery of an audience that has one of the
                users; nothing was changed. Or somebody keeps the files from being cleaned: all
                is done but that.
            StoreFailed: the files could not be cleaned, or nothing was changed; it says which.
            UsageError: the reason names one of the users.
        """
        check_reason(order.given.reason, order.names)
        with ExitStack() as stack:
            traces = self._forgotten(order, configured, stack)
        self._wipe()
        return traces

    def _wipe(self) -> None:
        try:
            self._database.wipe()
        except StoreFailed as error:
            raise StoreFailed(
                f"forgotten, but the store's files still hold what was removed: {error}",
                hint="make room on the disk, then run it again",
            ) from None

    def _forgotten(
        self, order: Order, configured: Collection[AudienceKey], stack: ExitStack
    ) -> Traces:
        # Who is reading a source now has not heard of this order, and would bring the users back.
        held = hold(stack, self._leases, captures(self._database, configured))
        self._sweep(held)
        traces = self.find(order.user_ids)
        owners = sorted(traces.audience_ids | traces.delivered)
        with self._database.read() as connection:
            lanes = {f"deliver:{s.destination}:{s.lane}" for s in open_spans(connection, owners)}
        held += hold(stack, self._leases, sorted(lanes))
        changes = changed_spans(self._database, owners, traces.positions, order.user_ids)
        with self._database.write(*held) as connection:
            _check_still(connection, owners, changes)
            self._remove(connection, order, traces, changes)
        return traces

    def _sweep(self, held: Sequence[Lease]) -> None:
        """What killed captures staged is nobody's."""
        snapshots = Snapshots(self._database, self._clock)
        staged = select(audience.c.key).join(snapshot).where(snapshot.c.state == "staged")
        with self._database.read() as connection:
            keys = set(connection.scalars(staged))
        for lease in held:
            key = AudienceKey(lease.name.removeprefix(CAPTURE))
            if key in keys:
                snapshots.sweep(key, lease)

    def _remove(
        self,
        connection: Connection,
        order: Order,
        traces: Traces,
        changes: Sequence[SpanChange],
    ) -> None:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA secure_delete = ON")
        now = self._clock()
        remember(connection, order.user_ids, now)
        rewrite(connection, traces, order.user_ids)
        for change in changes:
            values = {"position": change.position, "total": change.total}
            connection.execute(update(span).where(span.c.id == change.id).values(values))
        connection.execute(delete(rejection).where(rejection.c.user_id.in_(order.user_ids)))
        met = contacts.forget(connection, order.user_ids, order.typed)
        for run_id, counts in named_in_orders(connection, order.names):
            connection.execute(update(run).where(run.c.id == run_id).values(counts=counts))
        counts = {
            "users": len(order.user_ids),
            "audiences": len(traces.audience_ids),
            "chunks": len(traces.chunks),
            "rejections": traces.rejections,
            "contacts": met,
        }
        record(connection, "forget", order.given, now, counts, outcome="forgotten")


def check_reason(reason: str | None, names: Collection[str]) -> None:
    """Raises UsageError: it would keep what is to be forgotten."""
    if reason and without_names(reason, names) != reason:
        raise UsageError(
            "the reason names the person who is to be forgotten, and it is kept",
            hint="refer to the request by its number instead",
        )


def _check_still(
    connection: Connection, owners: Sequence[int], changes: Sequence[SpanChange]
) -> None:
    """Raises LeaseTaken when a span was opened since we looked: its lane is not ours.

    The rows are locked, as they are by whoever opens a span or prunes.
    """
    locked = select(audience.c.id).where(audience.c.id.in_(owners)).order_by(audience.c.id)
    connection.execute(locked.with_for_update()).all()
    known = {change.id for change in changes}
    for opened in open_spans(connection, owners):
        if opened.id not in known:
            name = f"deliver:{opened.destination}:{opened.lane}"
            raise LeaseTaken(f"another process is at work on {name}", hint=HINT)
