"""Other processes at the same store: ``python -m tests.fakes.store_process URL ORDER …``.

Racing processes are forked from one that has imported everything, and start at one signal.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import inspect

from audience_sync.domain.quota import Lane
from audience_sync.errors import AudienceSyncError, LeaseTaken, StoreFailed
from audience_sync.store import copy as copying
from audience_sync.store import forget as forgetting
from audience_sync.store import migrate
from audience_sync.store.engine import Database
from audience_sync.store.leases import HeldLease, Leases
from audience_sync.store.orders import Given
from audience_sync.store.quotas import Quotas
from tests.fakes.snapshot_log import START, Log, people


def say(what: object) -> None:
    print(what if isinstance(what, str) else json.dumps(what), flush=True)


def at_once(number: int, work: Callable[[], str]) -> list[str]:
    """What ``number`` processes answer; each lives until all have answered."""
    start, go = os.pipe()
    wait, end = os.pipe()
    answers, answer = os.pipe()
    children = [_child(work, start, go, wait, end, answer) for _ in range(number)]
    os.close(answer)
    os.close(go)
    with os.fdopen(answers) as lines:
        said = [lines.readline().strip() for _ in children]
    os.close(end)
    for child in children:
        os.waitpid(child, 0)
    return said


def _child(work: Callable[[], str], start: int, go: int, wait: int, end: int, answer: int) -> int:
    child = os.fork()
    if child:
        return child
    os.close(go)
    os.close(end)
    os.read(start, 1)
    os.write(answer, f"{work()}\n".encode())
    os.read(wait, 1)
    os._exit(0)


def acquire(url: str, *names: str) -> None:
    leases = Leases(Database(url))
    for name in names:
        leases.acquire(name)
    say("held")
    sys.stdin.read()


def race(url: str, name: str, number: str) -> None:
    def work() -> str:
        try:
            Leases(Database(url)).acquire(name)
        except LeaseTaken:
            return "taken"
        except AudienceSyncError as error:
            return f"failed: {error}"
        return "held"

    say(at_once(int(number), work))


def relay(url: str, name: str, number: str) -> None:
    def work() -> str:
        leases = Leases(Database(url))
        while True:
            try:
                with leases.hold(name) as lease:
                    return str(lease.epoch)
            except LeaseTaken:
                time.sleep(0.01)
            except AudienceSyncError as error:
                return f"failed: {error}"

    say([int(epoch) if epoch.isdigit() else epoch for epoch in at_once(int(number), work)])


def upgrade(url: str, number: str) -> None:
    import alembic.command  # noqa: F401  # imported before the processes part

    def work() -> str:
        try:
            return str(migrate.upgrade(Database(url)))
        except Exception as error:
            return f"failed: {error!r}"

    say(at_once(int(number), work))


def stage_without_room(url: str) -> None:
    """Stage while no file may grow, then again with room."""
    log = Log(Database(url), rows_per_chunk=100)
    log.put(people("a", "b", "c"))
    large = people(*(f"{n * 2654435761 % 2**32:08x}" for n in range(3_000)))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    answer = refused(lambda: log.stage(large, base=True))
    answer["seen_after"] = [log.seq, len(log.members(log.seq))]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    log.snapshots.sweep(log.key, log.lease)
    log.put(large, base=True)
    answer["seen_with_room"] = [log.seq, len(log.members(log.seq))]
    log.database.close()
    say(answer)


def write_as_nobody(url: str) -> None:
    warm = Database("sqlite://")  # what is imported late may not be readable to nobody
    warm.write().__enter__()
    if os.geteuid() == 0:
        os.seteuid(65534)
    say(refused(lambda: Leases(Database(url)).acquire("capture:vip")))


def refused(work: Callable[[], object]) -> dict[str, object]:
    try:
        work()
    except StoreFailed as error:
        return {"error": str(error), "hint": error.hint, "exit_code": error.exit_code}
    return {"error": None}


def killed_migrations(url: str, *steps: str) -> None:
    """One process after another, each killed inside the migration at its step.

    A step is the number of the table after which it dies, or ``end``: all is done but the commit.
    """
    say([_killed(url, step) for step in steps])


def _killed(url: str, step: str) -> list[object]:
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return [step, os.WIFSIGNALED(status) and os.WTERMSIG(status), _tables(url)]
    die_at(step)
    migrate.upgrade(Database(url))
    os._exit(0)


def die_at(step: str) -> None:
    if step == "end":
        migrate._run = _then_die(migrate._run)
        return
    from alembic import op

    create, made = op.create_table, []

    def create_table(name: str, *columns: object, **options: object) -> object:
        table = create(name, *columns, **options)  # type: ignore[arg-type]
        made.append(name)
        if len(made) == int(step):
            die()
        return table

    op.create_table = create_table  # type: ignore[assignment]


def _then_die(run: Callable[..., None]) -> Callable[..., None]:
    def work(*arguments: object, **named: object) -> None:
        run(*arguments, **named)
        die()

    return work


def copy(url: str, to: str) -> None:
    """Be killed when most of it has been written."""
    copying._continue_numbers = lambda _: die()
    copying.copy(Database(url), Database(to))


def forget(url: str, user_id: str, step: str) -> None:
    """Forget one user, and be killed at ``step``: before the function of that name, or before the
    commit."""
    database = Database(url)
    if step == "wipe":
        database.wipe = die  # type: ignore[method-assign]
    elif step == "commit":
        forgetting.record = _then_die(forgetting.record)
    else:
        setattr(forgetting, step, lambda *_: die())
    order = forgetting.Order(user_ids=[user_id], given=Given(actor="ann@ops"))
    forgetting.Forgetting(database, Leases(database), lambda: START).forget(order)


def use_quota(url: str, name: str, quota: str) -> None:
    """Both lanes reserve one by one what there is, at once; then what each of them got."""

    def work() -> str:
        database = Database(url)
        for lane in Lane:
            with suppress(LeaseTaken):
                lease = Leases(database).acquire(f"deliver:{name}:{lane}")
                break
        got = 0
        while granted := reserve(database, name, lane, 1, int(quota), lease):
            got += granted
        return f"{lane} {got}"

    say(dict(answer.split() for answer in at_once(2, work)))


def reserve_and_die(url: str, name: str, amount: str, quota: str) -> None:
    """Reserve for the initial lane, and be killed before anything of it is sent."""
    database = Database(url)
    lease = Leases(database).acquire(f"deliver:{name}:{Lane.INITIAL}")
    reserve(database, name, Lane.INITIAL, int(amount), int(quota), lease)
    die()


def reserve(
    database: Database, name: str, lane: Lane, amount: int, quota: int, lease: HeldLease
) -> int:
    return Quotas(database).reserve(
        name, lane, START.date(), amount, quota=quota, reserve=0.2, lease=lease
    )


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _tables(url: str) -> list[str]:
    database = Database(url)
    try:
        with database.read() as connection:
            return sorted(inspect(connection).get_table_names())
    finally:
        database.close()


ORDERS: dict[str, Callable[..., None]] = {
    "acquire": acquire,
    "race": race,
    "relay": relay,
    "upgrade": upgrade,
    "stage-without-room": stage_without_room,
    "write-as-nobody": write_as_nobody,
    "killed-migrations": killed_migrations,
    "copy": copy,
    "forget": forget,
    "use-quota": use_quota,
    "reserve-and-die": reserve_and_die,
}

if __name__ == "__main__":
    ORDERS[sys.argv[2]](sys.argv[1], *sys.argv[3:])
