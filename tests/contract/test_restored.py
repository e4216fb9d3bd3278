"""A store that came back from a backup, on both databases."""

from __future__ import annotations

import os
from typing import Any

import pytest

from audience_sync.domain.audience import AudienceKey, Tell
from audience_sync.domain.guard import Limits
from audience_sync.errors import LeaseLost, LeaseTaken
from audience_sync.store.engine import Database
from audience_sync.store.installation import installation_of
from audience_sync.store.leases import Leases, me
from audience_sync.store.orders import Given
from audience_sync.store.restored import restored, to_tell_anew
from tests.fakes.snapshot_log import START, Log, execute, new_lease, people, scalar

OLD = AudienceKey("old_hands")
ANN = Given(actor="ann@ops", reason="disk failed")


def opened(log: Log, to: str) -> Any:
    (waiting,) = log.spans.waiting(to, [log.key])
    lane = new_lease(log.database)
    return log.spans.open(waiting, to, tell=frozenset(Tell), limits=Limits(), lease=lane)


def filled(database: Database) -> Log:
    """One audience told at crisp and under way at segment, one told nowhere; nobody at work."""
    installation_of(database, START)
    log, old = Log(database), Log(database, OLD)
    log.put(people("a", "b"))
    old.put(people("a"))
    log.spans.complete(opened(log, "crisp"), new_lease(database))
    opened(log, "segment")
    execute(database, "UPDATE lease SET expires_at = 0")
    return log


def rows(database: Database, sql: str) -> list[tuple[Any, ...]]:
    with database.read() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(sql)]


def test_everything_that_was_begun_is_told_anew(database: Database) -> None:
    log = filled(database)
    assert to_tell_anew(database) == [(log.key, "crisp"), (log.key, "segment")]
    restored(database, ANN, log.clock.now)
    wanted = (
        "SELECT audience.key, destination.name, span_id FROM resync "
        "JOIN audience ON audience.id = audience_id "
        "JOIN destination ON destination.id = destination_id ORDER BY 2"
    )
    assert rows(database, wanted) == [(log.key, "crisp", None), (log.key, "segment", None)]
    assert log.snapshots.next_due(log.key) == log.clock.now
    assert rows(database, "SELECT outcome, actor FROM run WHERE kind = 'restored'") == [
        ("ordered", "ann@ops")
    ]
    restored(database, ANN, log.clock.now)
    assert len(rows(database, wanted)) == 2


def test_no_message_id_can_be_one_of_before(database: Database) -> None:
    filled(database)
    before = installation_of(database, START)
    restored(database, ANN, START)
    after = installation_of(database, START)
    assert after.key != before.key
    assert len(after.key) == len(before.key)
    assert after.secret == before.secret


def test_leases_of_the_dead_are_free_at_once(database: Database) -> None:
    filled(database)
    dead = me().replace(f"|{os.getpid()}|", "|999999999|")
    execute(database, "UPDATE lease SET expires_at = 99999999999, holder = :dead", dead=dead)
    restored(database, ANN, START)
    assert scalar(database, "SELECT max(expires_at) FROM lease") == 0
    Leases(database).acquire("capture:vip")


@pytest.mark.parametrize("holder", [None, "another-host|boot|1|1"])
def test_whoever_lives_is_not_robbed(database: Database, holder: str | None) -> None:
    """On another host nobody can see who lives: their leases end by themselves."""
    filled(database)
    before = installation_of(database, START)
    lease = Leases(database).acquire("deliver:crisp:initial")
    if holder is not None:
        execute(database, "UPDATE lease SET holder = :holder", holder=holder)
    with pytest.raises(LeaseTaken, match="deliver:crisp:initial") as taken:
        restored(database, ANN, START)
    assert "stop it, or wait" in str(taken.value.hint)
    assert installation_of(database, START) == before
    assert scalar(database, "SELECT count(*) FROM resync") == 0
    Leases(database).renew(lease)


def test_who_held_a_lease_after_the_backup_holds_none(database: Database) -> None:
    """A frozen process may have an epoch that the store has yet to give out."""
    log = filled(database)
    frozen = Leases(database).acquire("capture:vip")
    execute(database, "UPDATE lease SET expires_at = 0, epoch = epoch - 1")
    restored(database, ANN, START)
    for _ in range(3):
        log.lease = new_lease(database, "capture:vip")
        assert log.lease.epoch != frozen.epoch
        with pytest.raises(LeaseLost), database.write(frozen):
            pass
