"""``deploy/systemd`` and ``deploy/crontab``: verified by systemd, and their commands run."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.deployed import (
    DEPLOY,
    LONGEST_STOP,
    WRITE_KEY,
    Machine,
    everybody,
    read,
    seconds,
    told,
    tool,
)
from tests.acceptance.program import LONGEST, Done, wait_until
from tests.fakes.tracking_api import Served, serve

DAEMON = "systemd/audience-sync.service"
ONCE = "systemd/audience-sync-sync.service"
TIMER = "systemd/audience-sync-sync.timer"
SYSUSERS = "systemd/audience-sync.sysusers"
CREDENTIALS = "/etc/audience-sync/credentials"
NEWER = {"RestartSteps": 254, "RestartMaxDelaySec": 254}
"""Keys that older versions of systemd ignore, with a line in the journal."""


class Unit:
    """The lines of a unit, in order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: list[tuple[str, str]] = []
        for line in read(name).splitlines():
            key, equals, value = line.partition("=")
            if equals and not line.startswith("#"):
                self.lines.append((key, value))

    def all(self, key: str) -> list[str]:
        return [value for name, value in self.lines if name == key]

    def one(self, key: str) -> str:
        (value,) = self.all(key)
        return value

    def environment(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.all("Environment"))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    log = tmp_path / "told"
    log.touch()
    with serve(log=log, write_key=WRITE_KEY) as api:
        yield api


@pytest.fixture
def machine(tmp_path: Path, served: Served) -> Machine:
    machine = Machine(root=tmp_path / "root")
    machine.install()
    secrets = {
        f"{CREDENTIALS}/segment": WRITE_KEY,
        f"{CREDENTIALS}/warehouse": machine.warehouse(),
    }
    machine.configure(read("config.toml"), served.endpoint, secrets)
    return machine


def surroundings(machine: Machine, unit: Unit) -> dict[str, str]:
    """What systemd hands over: variables, and a copy of each credential, in a folder of its own."""
    for line in unit.all("LoadCredential"):
        name, _, path = line.partition(":")
        machine.put(f"/run/credentials/{name}", machine.at(path).read_text(), mode=0o400)
    folder = str(machine.at("/run/credentials"))
    return unit.environment() | {"CREDENTIALS_DIRECTORY": folder}


def exec_start(machine: Machine, unit: Unit) -> list[str]:
    return shlex.split(machine.rooted(unit.one("ExecStart")))


def run(machine: Machine, unit: Unit) -> Done:
    command = exec_start(machine, unit)
    return machine.run(command, surroundings(machine, unit), unit.one("WorkingDirectory"))


class TestUnits:
    def test_systemd_finds_nothing_wrong(self, machine: Machine, tmp_path: Path) -> None:
        analyze = tool("systemd-analyze", "systemd")
        for unit in DEPLOY.glob("systemd/audience-sync*.[st]*e*"):
            (tmp_path / unit.name).write_text(machine.rooted(unit.read_text()))
        names = [tmp_path / Path(name).name for name in (DAEMON, ONCE, TIMER)]
        done = subprocess.run(
            [analyze, "verify", "--man=no", *names], capture_output=True, text=True, check=False
        )
        version = subprocess.run([analyze, "--version"], capture_output=True, text=True, check=True)
        running = int(version.stdout.split()[1])
        unknown = [key for key, since in NEWER.items() if running < since]
        said = [line for line in done.stderr.splitlines() if "audience-sync" in line]
        assert [line for line in said if not any(f"'{key}'" in line for key in unknown)] == []
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize("name", [DAEMON, ONCE])
    def test_it_may_do_little_else(self, name: str) -> None:
        """0 is nothing at all, 10 what root may; a service without any of it has 9.2 or more."""
        analyze = tool("systemd-analyze", "systemd")
        done = subprocess.run(
            [analyze, "security", "--offline=true", "--no-pager", "--threshold=15", DEPLOY / name],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout

    def test_both_services_are_held_in_the_same_way(self) -> None:
        daemon, once = (read(name).partition("\nUser=")[2] for name in (DAEMON, ONCE))
        assert daemon.partition("\n[Install]")[0].strip() == once.strip()
        assert "MemoryDenyWriteExecute=yes" in once

    def test_the_user_is_made_as_the_units_name_it(self, tmp_path: Path) -> None:
        sysusers = tool("systemd-sysusers", "systemd")
        (tmp_path / "etc").mkdir()
        done = subprocess.run(
            [sysusers, f"--root={tmp_path}", DEPLOY / SYSUSERS],
            capture_output=True,
            text=True,
            check=False,
        )
        passwd = (tmp_path / "etc" / "passwd").read_text()
        assert done.returncode == 0, done.stderr
        assert re.search(rf"^{Unit(DAEMON).one('User')}:.*:/var/lib/audience-sync:", passwd, re.M)

    def test_times_leave_room_for_each_other(self) -> None:
        for unit in (Unit(DAEMON), Unit(ONCE)):
            assert seconds(unit.one("TimeoutStopSec")) > LONGEST_STOP
        every = re.fullmatch(r"\*:0/(\d+)", Unit(TIMER).one("OnCalendar"))
        assert every is not None
        *_, most = Unit(ONCE).one("ExecStart").split()
        assert seconds(most) < int(every[1]) * 60
        assert seconds(Unit(ONCE).one("TimeoutStartSec")) > seconds(most)


class TestOneRun:
    def test_the_service_tells_everybody_and_the_next_one_nobody(
        self, machine: Machine, served: Served
    ) -> None:
        for _ in range(2):
            done = run(machine, Unit(ONCE))
            assert done.code == 0, done
            assert told(served) == everybody()

    def test_what_is_held_makes_the_unit_fail(self, machine: Machine) -> None:
        place = machine.at("/etc/audience-sync/config.toml")
        place.write_text("[guard]\nmax_initial = 10\n" + place.read_text())
        done = run(machine, Unit(ONCE))
        assert done.code == 3, done
        assert Unit(ONCE).all("SuccessExitStatus") == []


class TestDaemon:
    def test_it_is_ready_reloads_and_stops(self, machine: Machine, served: Served) -> None:
        unit = Unit(DAEMON)
        address = str(machine.root / "notify")
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as systemd:
            systemd.bind(address)
            systemd.settimeout(LONGEST)
            variables = surroundings(machine, unit) | {"NOTIFY_SOCKET": address}
            command, folder = exec_start(machine, unit), unit.one("WorkingDirectory")
            with machine.start(command, variables, folder) as daemon:
                try:
                    hear(systemd, "READY=1")
                    wait_until(lambda: told(served) == everybody())
                    reload = ["sh", "-c", unit.one("ExecReload")]
                    done = machine.run(reload, {"MAINPID": str(daemon.pid)}, "/")
                    assert done.code == 0, done
                    hear(systemd, "RELOADING=1")
                    hear(systemd, "READY=1")
                    daemon.terminate()
                    hear(systemd, "STOPPING=1")
                    out, _ = daemon.communicate(timeout=LONGEST)
                finally:
                    daemon.kill()
        assert daemon.returncode == 0, out
        assert WRITE_KEY not in out

    def test_what_another_start_does_not_mend_ends_for_good(self, machine: Machine) -> None:
        unit = Unit(DAEMON)
        for_good = {int(code) for code in unit.one("RestartPreventExitStatus").split()}
        place = machine.at("/etc/audience-sync/config.toml")
        place.write_text(place.read_text().replace('every = "2h..3h"', 'every = "never"'))
        command = exec_start(machine, unit)
        codes = {run(machine, unit).code}
        done = machine.run([*command, "--no-such-option"], surroundings(machine, unit), "/")
        assert codes | {done.code} == for_good


class TestCrontab:
    def lines(self) -> tuple[dict[str, str], list[str]]:
        """Variables and commands, as cron(5) reads them."""
        text = [line for line in read("crontab").splitlines() if line and line[0] != "#"]
        variables = dict(line.split("=", 1) for line in text if re.match(r"[A-Z_]+=", line))
        entries = [re.fullmatch(r"((?:[\d*/,-]+ +){5})(.+)", line) for line in text]
        commands = [entry[2] for entry in entries if entry is not None]
        assert len(variables) + len(commands) == len(text)
        assert not [command for command in commands if "%" in command], "means a new line to cron"
        return variables, commands

    def call(self, machine: Machine, command: str) -> Done:
        variables, _ = self.lines()
        return machine.run(["/bin/sh", "-c", machine.rooted(command)], variables, "/")

    def test_the_first_line_syncs_without_a_word(self, machine: Machine, served: Served) -> None:
        _, (sync, _) = self.lines()
        done = self.call(machine, sync)
        assert (done.code, done.out, done.err) == (0, "", "")
        assert told(served) == everybody()
        assert "40 accepted" in machine.at("/var/lib/audience-sync/sync.log").read_text()

    def test_what_it_writes_is_rotated(self) -> None:
        _, (sync, _) = self.lines()
        (log,) = re.findall(r">> (\S+)", sync)
        assert f"\n{log} {{\n" in read("logrotate")
        assert "su audience-sync audience-sync" in read("logrotate")

    def test_the_second_speaks_when_somebody_is_needed(
        self, machine: Machine, served: Served
    ) -> None:
        _, (sync, status) = self.lines()
        self.call(machine, sync)
        done = self.call(machine, status)
        assert (done.out, done.err) == ("", "")
        self.call(machine, "audience-sync pause --destination segment --yes")
        done = self.call(machine, status)
        assert "! segment" in done.out


def test_every_command_is_there(machine: Machine) -> None:
    for name in (DAEMON, ONCE):
        command = exec_start(machine, Unit(name))
        done = machine.run([*command, "--help"], {}, "/")
        assert done.code == 0, done


def test_the_configuration_is_as_the_program_reads_it(machine: Machine) -> None:
    """By hand, too: nobody hands over credentials then."""
    variables = Unit(DAEMON).environment()
    program = machine.rooted("/opt/audience-sync/bin/audience-sync")
    done = machine.run([program, "check", "--offline"], variables, "/")
    assert done.code == 0, done
    assert "warning" not in done.err, done


def hear(systemd: socket.socket, line: str) -> None:
    """Wait until the daemon says ``line``."""
    while line not in systemd.recv(4096).decode().splitlines():
        pass
