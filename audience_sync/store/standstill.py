"""Everybody at rest: the leases of all who could be at work in a store."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack

from sqlalchemy import select

from audience_sync.domain.audience import AudienceKey
from audience_sync.domain.quota import Lane
from audience_sync.errors import LeaseTaken
from audience_sync.pipeline.ports.leases import Lease
from audience_sync.store.engine import Database
from audience_sync.store.leases import Leases
from audience_sync.store.schema import audience, destination
from audience_sync.store.schema import lease as table

CAPTURE, DELIVER = "capture:", "deliver:"
HINT = "stop it or wait until it has ended, then run this again; nothing was changed"


def hold(stack: ExitStack, leases: Leases, names: Collection[str]) -> list[Lease]:
    """Hold ``names`` until ``stack`` ends.

    Raises:
        LeaseTaken: somebody is at work.
    """
    try:
        return [stack.enter_context(leases.hold(name)) for name in names]
    except LeaseTaken as taken:
        raise LeaseTaken(str(taken), hint=HINT) from None


def captures(database: Database, configured: Collection[AudienceKey] = ()) -> list[str]:
    """Every audience that is, was, or may be captured at this moment, whoever configured it."""
    with database.read() as connection:
        keys = connection.scalars(select(audience.c.key)).all()
        leased = connection.scalars(select(table.c.name).where(table.c.name.startswith(CAPTURE)))
        return sorted({*leased, *(f"{CAPTURE}{key}" for key in (*keys, *configured))})


def deliveries(database: Database) -> list[str]:
    """Both lanes of every destination that was, or is, delivered to."""
    with database.read() as connection:
        names = connection.scalars(select(destination.c.name)).all()
        leased = connection.scalars(select(table.c.name).where(table.c.name.startswith(DELIVER)))
        lanes = {f"{DELIVER}{name}:{lane}" for name in names for lane in Lane}
        return sorted({*leased, *lanes})
