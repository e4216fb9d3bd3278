"""Leases: the right to capture an audience, or to deliver to a destination's lane (P7).

A lease is a row with an epoch. Whoever takes it over raises the epoch, and every writing
transaction of the former holder then fails. Times are the database's.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, Row, func, literal_column, select, update
from sqlalchemy.exc import OperationalError

from audience_sync.errors import LeaseLost, LeaseTaken, StoreFailed
from audience_sync.store.engine import Database, insert_missing, limit
from audience_sync.store.schema import lease as table

DURATION = 60.0
"""Seconds for which a lease holds without renewal."""
RENEW_EVERY = 10.0
RELEASE_WITHIN = 5.0
LOCK_WAIT = 2.0
"""Seconds to wait for a row that another process has locked: it may be frozen, and whoever asks
has other leases to ask for."""
ASK_EVERY = 0.2
A_PERSON_WAITS = 10.0
"""Seconds that an order of a person, beside a daemon, waits for a capture or delivery to end."""
LOCK_NOT_AVAILABLE = "55P03"
BEYOND_ANY_HOLDER = 1_000
"""By so much epochs rise where a former holder may know a later one than the store."""
UNSEEN = "alive"
"""Instead of the start time of a process that lives, where that is all we can see of it."""
FREE = {"holder": "", "epoch": 0, "expires_at": 0.0}

log = structlog.get_logger(__name__)


def elapsed() -> float:
    """Seconds that pass during suspend too, so that a woken process knows it slept."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class HeldLease:
    """A ``pipeline.ports.Lease``."""

    def __init__(self, name: str, epoch: int, until: float) -> None:
        self.name = name
        self.epoch = epoch
        self.until = until

    def remaining(self) -> float:
        return self.until - elapsed()


class Leases:
    """See ``pipeline.ports.Leases``.

    Args:
        wait: seconds to wait for a holder to end.
    """

    def __init__(self, database: Database, *, wait: float = 0.0) -> None:
        self._database = database
        self._wait = wait

    @contextmanager
    def hold(self, name: str) -> Iterator[HeldLease]:
        """Hold ``name``, renewed by a thread until the context ends.

        Raises:
            LeaseTaken: a living process holds it.
        """
        lease = self._acquire_patiently(name)
        stop = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(lease, stop), daemon=True)
        keeper.start()
        try:
            yield lease
        finally:
            stop.set()
            # A renewal may wait for the store's lock for longer than a stop may take.
            keeper.join(RELEASE_WITHIN)
            self._release(lease)

    def _acquire_patiently(self, name: str) -> HeldLease:
        over = elapsed() + self._wait
        while True:
            try:
                return self.acquire(name)
            except LeaseTaken:
                if elapsed() >= over:
                    raise
            time.sleep(ASK_EVERY)

    def acquire(self, name: str) -> HeldLease:
        before = elapsed()
        with self._database.write() as connection:
            row = _locked(connection, name)
            if row.expires_at > row.clock and not is_dead(row.holder):
                raise LeaseTaken(f"another process is at work on {name}")
            epoch = row.epoch + 1
            connection.execute(
                update(table)
                .where(table.c.name == name)
                .values(holder=me(), epoch=epoch, expires_at=_now(connection) + DURATION)
            )
        return HeldLease(name, epoch, before + DURATION)

    def renew(self, lease: HeldLease) -> None:
        """Raises LeaseLost when it was taken over."""
        before = elapsed()
        with self._database.write() as connection:
            renewed = connection.execute(
                _mine(lease).values(expires_at=_now(connection) + DURATION)
            ).rowcount
        if not renewed:
            lease.until = before
            raise LeaseLost(f"another process took over {lease.name}")
        lease.until = before + DURATION

    def _keep(self, lease: HeldLease, stop: threading.Event) -> None:
        while not stop.wait(RENEW_EVERY):
            try:
                self.renew(lease)
            except LeaseLost:
                return
            except StoreFailed as error:
                log.warning("lease not renewed", lease=lease.name, error=str(error))

    def _release(self, lease: HeldLease) -> None:
        try:
            with self._database.write() as connection:
                # The next epoch: a renewal that comes late must not revive the lease.
                connection.execute(_mine(lease).values(expires_at=0.0, epoch=lease.epoch + 1))
        except StoreFailed as error:
            log.warning("lease not released", lease=lease.name, error=str(error))


def _locked(connection: Connection, name: str) -> Row[Any]:
    """Raises LeaseTaken when another process keeps the row locked for too long."""
    limit(connection, "lock_timeout", LOCK_WAIT)
    clock = _now(connection).label("clock")
    try:
        insert_missing(connection, table, {"name": name, **FREE})
        return connection.execute(
            select(table.c.holder, table.c.epoch, table.c.expires_at, clock)
            .where(table.c.name == name)
            .with_for_update()
        ).one()
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
    raise LeaseTaken(f"another process is at work on {name}, or frozen in the middle of it")


def free_all(connection: Connection) -> None:
    """Free the leases that a backup brought along.

    A process that held one after the backup was taken has a later epoch than the store: it must
    not be taken for whoever gets that one again.

    Raises:
        LeaseTaken: a living process holds one.
    """
    query = select(table.c.name, table.c.holder, table.c.expires_at, _now(connection))
    for row in connection.execute(query.with_for_update()).all():
        if row.expires_at > row[3] and not is_dead(row.holder):
            raise LeaseTaken(
                f"another process is at work on {row.name}",
                hint="stop it, or wait for a minute if it ran when the backup was taken",
            )
    epoch = table.c.epoch + BEYOND_ANY_HOLDER
    connection.execute(update(table).values(holder="", epoch=epoch, expires_at=0.0))


def me() -> str:
    """Host, boot, process and its start time: says on the same host whether a holder lives."""
    return "|".join((socket.gethostname(), _boot(), str(os.getpid()), _started(os.getpid())))


def is_dead(holder: str) -> bool:
    """Whether ``holder`` is known to be gone.

    ``False`` for whom we cannot see: on another host, in another container, before a reboot (a
    machine of the same name looks the same), or a process of another user where /proc hides
    those (``hidepid``, systemd's ``ProtectProc``); their lease runs out by itself.
    """
    host, boot, pid, started = (*holder.split("|"), "", "", "")[:4]
    if host != socket.gethostname() or boot != _boot():
        return False
    return _started(int(pid)) not in (started, UNSEEN)


def _boot() -> str:
    """Boot, and the namespace in which process numbers count (containers may share a host)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return "/"


def _started(pid: int) -> str:
    """When it started; nothing for one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return UNSEEN if _lives(pid) else ""
    return "" if fields[0] == "Z" else fields[19]


def _lives(pid: int) -> bool:
    """Without /proc (macOS), or where it does not show this process."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True


def _mine(lease: HeldLease):  # type: ignore[no-untyped-def]  # Update's type is not public
    return update(table).where(table.c.name == lease.name, table.c.epoch == lease.epoch)


def _now(connection: Connection):  # type: ignore[no-untyped-def]  # a float SQL expression
    if connection.dialect.name == "sqlite":
        return literal_column("((julianday('now') - 2440587.5) * 86400.0)")
    return func.extract("epoch", func.clock_timestamp())
