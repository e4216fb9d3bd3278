"""Leases on both databases: one holder, taken over when it is gone, fenced by the epoch (P7)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from audience_sync.errors import LeaseLost, LeaseTaken, StoreFailed
from audience_sync.store import engine
from audience_sync.store import leases as module
from audience_sync.store.engine import Database
from audience_sync.store.leases import DURATION, HeldLease, Leases, elapsed, is_dead, me
from tests.fakes.snapshot_log import execute, scalar

TOP = Path(__file__).parents[2]
NAME = "capture:vip"


@pytest.fixture
def leases(database: Database) -> Leases:
    return Leases(database)


@contextmanager
def other_process(url: str, *orders: str) -> Iterator[subprocess.Popen[str]]:
    """A process that does ``orders`` (see ``tests/fakes/store_process.py``) and then waits."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.store_process", url, *orders],
        cwd=TOP,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def holder(database: Database, name: str = NAME) -> str:
    return str(scalar(database, "SELECT holder FROM lease WHERE name = :name", name=name))


def clock(database: Database) -> str:
    sqlite = "(julianday('now') - 2440587.5) * 86400"
    return sqlite if database.is_sqlite else "extract(epoch from clock_timestamp())"


def expires_in(database: Database, name: str = NAME) -> float:
    sql = f"SELECT expires_at - {clock(database)} FROM lease WHERE name = :name"
    return float(scalar(database, sql, name=name))


def pretend(database: Database, who: str, seconds: float) -> None:
    """``NAME`` is held by ``who`` for so many seconds from now."""
    execute(
        database,
        f"UPDATE lease SET holder = :who, expires_at = {clock(database)} + :seconds "
        "WHERE name = :name",
        who=who,
        seconds=seconds,
        name=NAME,
    )


class TestOneHolder:
    def test_a_lease_is_for_sixty_seconds_by_the_databases_clock(
        self, leases: Leases, database: Database
    ) -> None:
        lease = leases.acquire(NAME)
        assert (lease.name, lease.epoch) == (NAME, 1)
        assert 30 < lease.remaining() <= DURATION
        assert 30 < expires_in(database) <= DURATION
        assert holder(database) == me()

    def test_a_living_holder_keeps_it(self, leases: Leases, store_url: str) -> None:
        with other_process(store_url, "acquire", NAME) as process:
            assert said(process) == "held"
            with pytest.raises(LeaseTaken, match=NAME), leases.hold(NAME):
                pass
            leases.acquire("capture:other")

    def test_not_twice_in_one_process_either(self, leases: Leases, database: Database) -> None:
        with leases.hold(NAME), pytest.raises(LeaseTaken):
            Leases(database).acquire(NAME)

    def test_it_is_free_after_its_context(self, leases: Leases) -> None:
        with leases.hold(NAME) as first:
            pass
        with pytest.raises(ZeroDivisionError), leases.hold(NAME) as second:
            raise ZeroDivisionError
        assert first.epoch < second.epoch < leases.acquire(NAME).epoch

    def test_a_renewal_that_comes_late_does_not_revive_it(self, leases: Leases) -> None:
        with leases.hold(NAME) as given_back:
            pass
        with pytest.raises(LeaseLost):
            leases.renew(given_back)
        leases.acquire(NAME)

    def test_of_ten_processes_exactly_one_wins(self, store_url: str) -> None:
        with other_process(store_url, "race", NAME, "10") as process:
            outcomes = json.loads(said(process))
        assert sorted(outcomes) == ["held"] + ["taken"] * 9

    def test_ten_processes_get_it_one_after_another(
        self, leases: Leases, database: Database, store_url: str
    ) -> None:
        """Each takes it when the one before gave it back or died; no epoch is given twice."""
        with other_process(store_url, "relay", NAME, "10") as process:
            epochs = json.loads(said(process))
        assert len(set(epochs)) == 10


class TestTakeOver:
    def test_a_killed_holder_is_replaced_at_once(
        self, leases: Leases, database: Database, store_url: str
    ) -> None:
        with other_process(store_url, "acquire", NAME, "capture:zombie") as process:
            assert said(process) == "held"
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            zombie = leases.acquire("capture:zombie")
            process.wait()
            lease = leases.acquire(NAME)
        assert (lease.epoch, zombie.epoch) == (2, 2)
        assert holder(database) == me()

    def test_a_process_that_got_the_number_of_the_dead_one_is_another(
        self, leases: Leases, database: Database
    ) -> None:
        leases.acquire(NAME)
        host, boot, pid, started = me().split("|")
        pretend(database, f"{host}|{boot}|{pid}|{int(started) - 1}", 60)
        assert leases.acquire(NAME).epoch == 2

    def test_before_another_boot_it_may_be_another_machine_of_the_same_name(
        self, leases: Leases, database: Database
    ) -> None:
        leases.acquire(NAME)
        host, boot, pid, started = me().split("|")
        _, _, namespace = boot.partition("/")
        pretend(database, f"{host}|another-boot/{namespace}|{pid}|{started}", 60)
        with pytest.raises(LeaseTaken):
            leases.acquire(NAME)

    @pytest.mark.parametrize("gone", [True, False])
    def test_another_host_is_waited_for(
        self, leases: Leases, database: Database, gone: bool
    ) -> None:
        leases.acquire(NAME)
        _, boot, pid, started = me().split("|")
        number = "999999999" if gone else pid
        foreign = f"elsewhere|{boot}|{number}|{started}"
        pretend(database, foreign, 60)
        with pytest.raises(LeaseTaken):
            leases.acquire(NAME)
        assert holder(database) == foreign
        pretend(database, foreign, -0.1)
        assert leases.acquire(NAME).epoch == 2

    def test_another_container_of_the_host_is_waited_for(
        self, leases: Leases, database: Database
    ) -> None:
        """Its process numbers are its own: ours say nothing of them."""
        leases.acquire(NAME)
        host, boot, _, started = me().split("|")
        boot_id, _, _ = boot.partition("/")
        pretend(database, f"{host}|{boot_id}/pid:[1]|999999999|{started}", 5)
        with pytest.raises(LeaseTaken):
            leases.acquire(NAME)

    def test_a_living_holder_of_this_host_that_slept_loses_it(
        self, leases: Leases, database: Database
    ) -> None:
        old = leases.acquire(NAME)
        pretend(database, me(), -0.1)
        assert leases.acquire(NAME).epoch == old.epoch + 1

    def test_what_is_dead(self) -> None:
        host, boot, pid, started = me().split("|")
        assert not is_dead(me())
        assert not is_dead("")
        assert is_dead(f"{host}|{boot}|999999999|{started}")
        assert not is_dead(f"elsewhere|{boot}|999999999|{started}")
        assert is_dead(f"{host}|{boot}|{pid}|1")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount another /proc")
    def test_one_that_is_hidden_from_us_is_not_dead(self) -> None:
        """Where /proc shows nobody the processes of others: a daemon looks at what root runs."""
        host, boot, _, started = me().split("|")
        look = (
            "import os, sys; from audience_sync.store.leases import is_dead; "
            "os.setgroups([]); os.setgid(65534); os.setuid(65534); "
            "print(*(os.path.exists(f'/proc/{who.split(chr(124))[2]}') for who in sys.argv[1:]), "
            "*(is_dead(who) for who in sys.argv[1:]))"
        )
        hidden = 'mount -t proc -o hidepid=2 proc /proc && exec "$@"'
        with subprocess.Popen(["sleep", "60"]) as root, subprocess.Popen(["true"]) as gone:
            gone.wait()
            holders = [f"{host}|{boot}|{pid}|{started}" for pid in (root.pid, gone.pid)]
            command = [sys.executable, "-c", look, *holders]
            done = subprocess.run(
                ["unshare", "--mount", "sh", "-c", hidden, "sh", *command],
                cwd=TOP,
                capture_output=True,
                text=True,
                check=False,
            )
            root.kill()
        assert done.stdout.split() == ["False", "False", "False", "True"], done.stderr


class TestFence:
    def test_an_old_epoch_writes_nothing(self, leases: Leases, database: Database) -> None:
        old = leases.acquire(NAME)
        pretend(database, me(), -0.1)
        new = leases.acquire(NAME)
        insert = "INSERT INTO destination (name) VALUES ('crisp')"
        with pytest.raises(LeaseLost, match=NAME), database.write(old) as connection:
            connection.exec_driver_sql(insert)
        assert scalar(database, "SELECT count(*) FROM destination") == 0
        with database.write(new) as connection:
            connection.exec_driver_sql(insert)
        assert scalar(database, "SELECT count(*) FROM destination") == 1

    def test_a_lease_that_is_not_there_writes_nothing(self, database: Database) -> None:
        made_up = HeldLease("capture:unknown", 1, elapsed() + 60)
        with pytest.raises(LeaseLost), database.write(made_up):
            pass

    def test_nobody_takes_over_in_the_middle_of_a_transaction(
        self, leases: Leases, database: Database, store_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The row is locked from the check to the commit."""
        monkeypatch.setattr(module, "LOCK_WAIT", 30)
        lease = leases.acquire(NAME)
        other = Database(store_url)
        taken = threading.Event()

        def take() -> None:
            Leases(other).acquire(NAME)
            taken.set()

        thread = threading.Thread(target=take)
        pretend(database, me(), -0.1)
        with database.write(lease) as connection:
            thread.start()
            assert not taken.wait(0.3)
            connection.exec_driver_sql("INSERT INTO destination (name) VALUES ('crisp')")
        thread.join(10)
        other.close()
        assert taken.is_set()
        with pytest.raises(LeaseLost), database.write(lease):
            pass


class TestFrozenInTheMiddleOfATransaction:
    """On PostgreSQL: a stopped process, or a host that is gone, keeps the locks of its rows. The
    lock of a SQLite file is the system's, and goes with the host."""

    def test_nobody_waits_for_its_lease(self, emptied_postgres_url: str) -> None:
        here, there = Database(emptied_postgres_url), Database(emptied_postgres_url)
        lease = Leases(there).acquire(NAME)
        pretend(here, "elsewhere|b|1|1", -0.1)
        with there.write(lease):
            with pytest.raises(LeaseTaken, match="frozen"):
                Leases(here).acquire(NAME)
            assert Leases(here).acquire("capture:loyal").epoch == 1
        here.close()
        there.close()

    def test_nor_for_one_that_it_is_about_to_take(self, emptied_postgres_url: str) -> None:
        here, there = Database(emptied_postgres_url), Database(emptied_postgres_url)
        with there.write() as connection:
            connection.exec_driver_sql("INSERT INTO lease VALUES ('capture:vip', '', 0, 0)")
            with pytest.raises(LeaseTaken, match="frozen"):
                Leases(here).acquire(NAME)
        here.close()
        there.close()

    def test_after_a_while_the_server_ends_its_transaction(
        self, emptied_postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "LOCK_WAIT", 30)
        here = Database(emptied_postgres_url)
        lease = Leases(here).acquire(NAME)
        with monkeypatch.context() as patch:
            patch.setattr(engine, "IDLE", 2)
            there = Database(emptied_postgres_url)
            with there.read() as connection:
                connection.exec_driver_sql("SELECT 1")
        pretend(here, "elsewhere|b|1|1", -0.1)
        insert = "INSERT INTO destination (name) VALUES ('crisp')"

        def freeze_and_go_on() -> None:
            with there.write(lease) as connection:
                connection.exec_driver_sql(insert)
                assert Leases(here).acquire(NAME).epoch == 2
                connection.exec_driver_sql(insert)

        with pytest.raises(StoreFailed, match="idle"):
            freeze_and_go_on()
        assert scalar(here, "SELECT count(*) FROM destination") == 0
        with pytest.raises(LeaseLost), there.write(lease):
            pass
        here.close()
        there.close()

    def test_a_long_look_at_one_moment_may_do_nothing_for_longer(
        self, emptied_postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(engine, "IDLE", 1)
        database = Database(emptied_postgres_url)
        with database.read(of_one_moment=True) as connection:
            connection.exec_driver_sql("SELECT 1")
            threading.Event().wait(2)
            connection.exec_driver_sql("SELECT 1")
        database.close()


class TestRenew:
    def test_it_holds_for_another_sixty_seconds(self, leases: Leases, database: Database) -> None:
        lease = leases.acquire(NAME)
        pretend(database, me(), 1)
        lease.until -= 50
        leases.renew(lease)
        assert 30 < expires_in(database) <= DURATION
        assert 30 < lease.remaining() <= DURATION
        assert lease.epoch == 1

    def test_not_after_it_was_taken_over(self, leases: Leases, database: Database) -> None:
        old = leases.acquire(NAME)
        pretend(database, me(), -0.1)
        leases.acquire(NAME)
        pretend(database, "elsewhere|b|1|1", 7)
        with pytest.raises(LeaseLost):
            leases.renew(old)
        assert old.remaining() <= 0
        assert expires_in(database) < 8

    def test_a_thread_renews_while_the_context_is_open(
        self, leases: Leases, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "RENEW_EVERY", 0.02)
        with leases.hold(NAME) as lease:
            pretend(database, me(), 1)
            _until(lambda: expires_in(database) > 50)
            _taken_elsewhere(database)
            _until(lambda: lease.remaining() <= 0)
        assert scalar(database, "SELECT epoch FROM lease") == 2
        # What was taken over is not given back by its former holder.
        assert expires_in(database) > 50

    def test_a_store_that_fails_for_a_moment_does_not_end_the_renewal(
        self, leases: Leases, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "RENEW_EVERY", 0.02)
        with leases.hold(NAME):
            execute(database, "ALTER TABLE lease RENAME TO away")
            threading.Event().wait(0.1)
            execute(database, "ALTER TABLE away RENAME TO lease")
            pretend(database, me(), 1)
            _until(lambda: expires_in(database) > 50)


def _taken_elsewhere(database: Database) -> None:
    """At once, or a renewal could come between."""
    execute(
        database,
        "UPDATE lease SET epoch = epoch + 1, holder = 'elsewhere|b|1|1', "
        f"expires_at = {clock(database)} + 60 WHERE name = :name",
        name=NAME,
    )


def _until(true: object) -> None:
    pause = threading.Event()
    for _ in range(500):
        if true():  # type: ignore[operator]
            return
        pause.wait(0.01)
    raise AssertionError("it did not become true in 5 s")
