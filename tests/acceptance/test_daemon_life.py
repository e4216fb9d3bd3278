"""``audience-sync run`` from its start to its end: captures, deliveries, signals, reloads."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from tests.acceptance.daemon import ENDS_WITHIN, running
from tests.acceptance.program import LONGEST, Program, full_pipe, people, segment, told, wait_until
from tests.fakes.tracking_api import Served, serve

STORES = ["sqlite", "postgresql"]
SECRET = "rT9wQ3xK7pLm2Vb8"
OFTEN = 'every = "1s"'


@pytest.fixture
def program(tmp_path: Path) -> Program:
    made = Program(folder=tmp_path, variables={"WRITE_KEY": SECRET})
    made.members("vip", range(30))
    return made


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    """The address of an empty store."""
    if request.param == "sqlite":
        return "sqlite:///state.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(log=tmp_path / "accepted.log", write_key=SECRET, hang=60) as served:
        yield served


def edit(program: Program, change: Callable[[str], str]) -> None:
    path = program.folder / "config.toml"
    path.write_text(change(path.read_text()))


def in_store(program: Program, store: str) -> None:
    edit(program, lambda written: written.replace("sqlite:///state.db", store))


def often(program: Program) -> None:
    edit(program, lambda written: written.replace('every = "1h"', OFTEN))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_due_is_captured_and_told_until_a_signal(
    program: Program, store: str, number: int
) -> None:
    program.configure()
    in_store(program, store)
    often(program)
    with running(program) as daemon:
        wait_until(lambda: set(told(program.calls())) == people(range(30)))
        program.members("vip", range(1, 31))
        wait_until(lambda: told(program.calls()).get("person-0000") is False)
        wait_until(lambda: told(program.calls()).get("person-0030") is True)
        assert daemon.stop(number) == 0
    assert len(program.calls()) == 32
    captured = [line["seq"] for line in daemon.said("captured", outcome="committed")]
    delivered = daemon.said("delivered")  # the last one may be stopped with nothing left to tell
    ends = [line["to_seq"] for line in delivered]
    assert [line["from_seq"] for line in delivered] == [0, *ends[:-1]]
    assert ends[-1] == captured[-1]
    assert daemon.said("stopping")
    assert daemon.lines()[-1]["event"] == "stopped"
    assert "person-" not in daemon.log.read_text()
    assert "private.example" not in daemon.log.read_text()


def test_nothing_is_captured_before_it_is_due_also_after_a_restart(program: Program) -> None:
    program.configure()
    for is_new in (True, False):
        with running(program) as daemon:
            daemon.wait_for("started")
            wait_until(lambda: len(program.calls()) == 30)
            program.members("vip", range(10, 40))
            time.sleep(1.5)  # a cycle that should not be
            assert daemon.stop() == 0
            made = [line["store"] for line in daemon.said("a new store was made")]
            assert made == ([str(program.folder / "state.db")] if is_new else [])
    assert len(program.calls()) == 30
    assert program.stored("SELECT count(*) FROM run WHERE kind = 'capture'") == [(1,)]


def test_a_second_signal_ends_it_at_once(program: Program, served: Served) -> None:
    program.configure({"vip": ["cdp"]}, destinations=segment("cdp", served.faulty("hang_after")))
    with running(program) as daemon:
        wait_until(lambda: len(served.calls()) == 30)  # and no answer
        daemon.send(signal.SIGTERM)
        daemon.wait_for("stopping")
        assert not daemon.ended
        began = time.monotonic()
        assert daemon.stop() == 128 + signal.SIGTERM
        assert time.monotonic() - began < 5


def test_a_hanging_destination_does_not_keep_it(program: Program, served: Served) -> None:
    program.configure({"vip": ["cdp"]}, destinations=segment("cdp", served.faulty("hang_after")))
    with running(program) as daemon:
        wait_until(lambda: len(served.calls()) == 30)  # and no answer
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < ENDS_WITHIN


@pytest.mark.parametrize("reloads", [0, 1])
def test_a_hanging_source_does_not_keep_it(
    program: Program, postgres_url: str, reloads: int
) -> None:
    """Nor does one that was asked before a reload."""
    program.configure({})
    edit(
        program,
        lambda written: (
            written
            + f'[sources.db]\ntype = "sql"\nurl = "{postgres_url}"\n'
            + '[[audiences]]\nname = "slow"\nsource = "db"\ndestinations = ["calls"]\n'
            + "query = \"SELECT 'person-1' AS user_id FROM pg_sleep(300)\"\n"
        ),
    )
    asked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(300)%'"
    engine = create_engine(make_url(postgres_url))

    def is_asked() -> bool:
        with engine.connect() as connection:
            return bool(connection.scalar(text(asked + " AND pid <> pg_backend_pid()")))

    with running(program) as daemon:
        wait_until(is_asked)
        for count in range(1, reloads + 1):
            daemon.send(signal.SIGHUP)
            daemon.wait_for("reloaded", count)
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < ENDS_WITHIN
        assert daemon.said("still at work")
    engine.dispose()


def test_sighup_takes_up_what_was_edited(program: Program, store: str) -> None:
    program.configure()
    in_store(program, store)
    program.members("winback", range(5))
    with running(program) as daemon:
        wait_until(lambda: len(program.calls()) == 30)
        program.configure({"vip": ["calls"], "winback": ["calls"]})
        in_store(program, store)
        daemon.send(signal.SIGHUP)
        daemon.wait_for("reloaded", audiences=2)
        wait_until(lambda: set(told(program.calls(), "winback")) == people(range(5)))
        assert daemon.stop() == 0
    assert len(program.calls()) == 35


def test_a_sighup_during_the_start_is_not_lost(program: Program, postgres_url: str) -> None:
    later = make_url(postgres_url).set(database=f"later_{time.monotonic_ns()}")
    program.configure()
    in_store(program, later.render_as_string(hide_password=False))
    program.members("winback", range(5))
    admin = create_engine(make_url(postgres_url), isolation_level="AUTOCOMMIT")
    with running(program) as daemon, admin.connect() as connection:
        daemon.wait_for("waiting for the store")
        program.configure({"vip": ["calls"], "winback": ["calls"]})
        in_store(program, later.render_as_string(hide_password=False))
        daemon.send(signal.SIGHUP)
        time.sleep(1.5)  # a tick
        connection.execute(text(f"CREATE DATABASE {later.database}"))
        try:
            daemon.wait_for("reloaded", audiences=2)
            assert daemon.stop() == 0
        finally:
            connection.execute(text(f"DROP DATABASE {later.database} WITH (FORCE)"))
    admin.dispose()


def test_sighup_with_a_mistake_keeps_what_is_in_use(program: Program) -> None:
    program.configure()
    often(program)
    with running(program) as daemon:
        wait_until(lambda: len(program.calls()) == 30)
        edit(program, lambda written: written + "\n[guard]\nflor = 3\n")
        daemon.send(signal.SIGHUP)
        line = daemon.wait_for("not reloaded")
        assert line["level"] == "error"
        (problem,) = line["problems"]
        assert "config.toml:" in problem
        assert 'did you mean "floor"' in problem
        assert "again_in_seconds" not in line
        program.members("vip", range(31))
        wait_until(lambda: told(program.calls()).get("person-0030") is True)
        assert daemon.stop() == 0


def test_a_slip_in_the_address_of_the_store_tells_nobody_anew(program: Program) -> None:
    program.configure()
    with running(program) as daemon:
        wait_until(lambda: len(program.calls()) == 30)
        edit(program, lambda written: written.replace("state.db", "sate.db"))
        daemon.send(signal.SIGHUP)
        line = daemon.wait_for("not reloaded")
        assert "there is no store at the new [store] url" in line["problems"][0]
        assert not (program.folder / "sate.db").exists()
        assert program.run("db", "upgrade").code == 0
        daemon.send(signal.SIGHUP)
        daemon.wait_for("reloaded")
        wait_until(lambda: len(program.calls()) == 60)
        assert daemon.stop() == 0


def test_a_reload_that_the_store_kept_out_is_tried_again(program: Program) -> None:
    program.configure()
    program.members("winback", range(5))
    program.members("lost", range(3))
    store, aside = program.folder / "state.db", program.folder / "aside.db"
    with running(program) as daemon:
        daemon.wait_for("delivered")
        # And nobody has a lease that he could not give back.
        held = "SELECT count(*) FROM lease WHERE expires_at > 0"
        wait_until(lambda: program.stored(held) == [(0,)])
        store.rename(aside)
        program.configure({"vip": ["calls"], "lost": ["calls"]})
        daemon.send(signal.SIGHUP)
        line = daemon.wait_for("not reloaded")
        assert "was removed or replaced" in line["problems"][0]
        assert line["hint"].startswith("end all that use the store")
        assert line["again_in_seconds"] == 2
        program.configure({"vip": ["calls"], "winback": ["calls"]})
        daemon.send(signal.SIGHUP)  # the newer one is what is wanted
        daemon.wait_for("not reloaded", 2)
        program.configure({"vip": ["calls"]})  # and not what somebody is about to write
        aside.rename(store)
        daemon.wait_for("reloaded", audiences=2)
        wait_until(lambda: set(told(program.calls(), "winback")) == people(range(5)))
        assert daemon.stop() == 0
    assert len(daemon.said("reloaded")) == 1
    assert len(daemon.said("not reloaded")) == 2
    assert len(program.calls()) == 35


def test_a_secret_that_is_rotated_is_read_without_a_signal(
    program: Program, served: Served
) -> None:
    place = segment("cdp", served.endpoint).replace("${WRITE_KEY}", "${file:key}")
    secret = program.folder / "key"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    program.configure({"vip": ["cdp"]}, destinations=place)
    with running(program) as daemon:
        wait_until(lambda: len(served.calls()) == 30)
        (program.folder / "next").write_text(SECRET[::-1])
        (program.folder / "next").chmod(0o600)
        (program.folder / "next").rename(secret)
        daemon.wait_for("a secret file has changed")
        daemon.wait_for("reloaded")
        assert daemon.stop() == 0
    assert SECRET not in daemon.log.read_text()
    assert SECRET[::-1] not in daemon.log.read_text()


def test_a_wrong_configuration_starts_nothing(program: Program) -> None:
    program.configure()
    edit(program, lambda written: written.replace('source = "files"', 'source = "file"'))
    done = program.run("run")
    assert done.code == 78
    (line,) = map(json.loads, done.err.splitlines())
    assert (line["event"], line["level"], line["exit_code"]) == ("ended", "error", 78)
    assert "config.toml:" in line["problems"][0]
    assert not (program.folder / "state.db").exists()


def test_on_a_terminal_a_banner_says_what_this_is(program: Program) -> None:
    program.configure()
    ours, theirs = pty.openpty()
    process = program.start("run", stdin=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while b"delivered" not in shown:
        shown += os.read(ours, 65_536)
    process.send_signal(signal.SIGINT)
    assert process.wait(ENDS_WITHIN) == 0
    os.close(ours)
    assert process.stdout is not None
    process.stdout.close()
    assert b"audience-sync run: the daemon" in shown
    assert b"audience-sync sync" in shown


def test_it_waits_for_a_store_that_comes_up_later(program: Program, postgres_url: str) -> None:
    later = make_url(postgres_url).set(database="later_" + str(time.monotonic_ns()))
    program.configure()
    in_store(program, later.render_as_string(hide_password=False))
    admin = create_engine(make_url(postgres_url), isolation_level="AUTOCOMMIT")
    with running(program) as daemon, admin.connect() as connection:
        daemon.wait_for("waiting for the store")
        assert not daemon.said("started")
        connection.execute(text(f"CREATE DATABASE {later.database}"))
        try:
            wait_until(lambda: len(program.calls()) == 30)
            assert daemon.stop() == 0
        finally:
            connection.execute(text(f"DROP DATABASE {later.database} WITH (FORCE)"))
    admin.dispose()


def test_a_signal_ends_the_waiting_for_a_store(program: Program, postgres_url: str) -> None:
    program.configure()
    in_store(program, str(make_url(postgres_url).set(database="never")))
    with running(program) as daemon:
        daemon.wait_for("waiting for the store")
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 10


def test_systemd_is_told_how_it_is(program: Program) -> None:
    program.configure()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(program.folder / "notify"))
        systemd.settimeout(LONGEST)
        with running(
            program, NOTIFY_SOCKET=str(program.folder / "notify"), WATCHDOG_USEC="9000000"
        ) as daemon:
            heard: list[str] = []

            def hear(what: str) -> None:
                while not any(what in message for message in heard):
                    heard.append(systemd.recv(4096).decode())

            hear("READY=1")
            assert not any("STOPPING" in message for message in heard)
            assert (program.folder / "state.db").exists()
            hear("WATCHDOG=1")
            hear("STATUS=1 audiences, 1 destinations; next capture")
            daemon.send(signal.SIGHUP)
            hear("RELOADING=1\nMONOTONIC_USEC=")
            del heard[:]
            hear("READY=1")
            daemon.send(signal.SIGTERM)
            hear("STOPPING=1")
            assert daemon.process.wait(ENDS_WITHIN) == 0


def test_a_log_that_nobody_can_write_stops_nothing(program: Program) -> None:
    program.configure()
    with open("/dev/full", "w") as full:  # a device
        process = program.start("run", stderr=full)
    wait_until(lambda: len(program.calls()) == 30)
    process.terminate()
    assert process.wait(ENDS_WITHIN) == 0
    assert process.stdout is not None
    process.stdout.close()


def test_a_log_that_nobody_reads_keeps_no_signal_from_it(program: Program) -> None:
    program.configure()
    reading, writing = full_pipe()
    process = program.start("run", stdout=subprocess.DEVNULL, stderr=writing)
    os.close(writing)
    wait_until((program.folder / "state.db").exists)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert process.wait(ENDS_WITHIN) in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    os.close(reading)


def test_what_ends_in_time_is_not_called_unfinished(program: Program, tmp_path: Path) -> None:
    """A request in flight may take longer than a capture alone may."""
    with serve(log=tmp_path / "accepted.log", write_key=SECRET, hang=6.5) as slow:
        place = segment("cdp", slow.faulty("hang_after"))
        program.configure({"vip": ["cdp"]}, destinations=place)
        spill = program.folder / "spill"
        edit(program, lambda written: f'{written}\n[engine]\nspill = "{spill}"\n')
        with running(program) as daemon:
            wait_until(lambda: len(slow.calls()) == 30)  # and no answer
            assert daemon.stop() == 0
            assert not daemon.said("still at work")
            assert daemon.lines()[-1]["event"] == "stopped"
    assert list(spill.iterdir()) == []
