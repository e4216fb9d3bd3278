"""The units under a real systemd, in namespaces of its own: sandbox, credentials, reload, stop."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.deployed import (
    DEPLOY,
    PORT,
    WRITE_KEY,
    Machine,
    everybody,
    needs_namespaces,
    read,
    told,
    tool,
)
from tests.acceptance.program import TOP
from tests.fakes.tracking_api import Served, serve

BOOT = Path(__file__).with_name("boot_systemd.sh")
CREDENTIALS = "/etc/audience-sync/credentials"
PROGRAM = """\
#!/bin/sh
PYTHONPATH=/opt/checkout:/opt/dependencies PYTHONHOME=/opt/python LD_LIBRARY_PATH=/opt/python/lib
export PYTHONPATH PYTHONHOME LD_LIBRARY_PATH
exec /opt/python/bin/python3 -m audience_sync "$@"
"""
DRIVE = """\
[Unit]
After=basic.target
[Service]
Type=oneshot
ExecStart=/bin/bash /drive.sh
ExecStopPost=/bin/systemctl --no-block poweroff
"""
BEGIN = r"""
exec > /out 2>&1
step() { echo "== $1"; shift; "$@"; echo "-- $?"; }
mount --make-rshared /
"""
STEPS = r"""
by_hand() {
    AUDIENCE_SYNC_CONFIG=/etc/audience-sync/config.toml /opt/audience-sync/bin/audience-sync "$@"
}
until_restarted() {
    for _ in $(seq 300); do
        systemctl show audience-sync.service -p NRestarts -p ActiveState > /found
        grep -qx "NRestarts=$1" /found && grep -qx ActiveState=active /found && return
        sleep 0.1
    done
    false
}
beat() { systemctl show -P WatchdogTimestampMonotonic audience-sync.service; }
until_beaten() {
    first=$(beat)
    for _ in $(seq 50); do  # less than the watchdog waits
        [ "$(beat)" != "$first" ] && return
        sleep 0.1
    done
    false
}
systemd-sysusers
systemctl daemon-reload
step timer systemctl start audience-sync-sync.timer
step once systemctl start audience-sync-sync.service
step start systemctl start audience-sync.service
step status systemctl show -p StatusText -p ActiveState audience-sync.service
pid=$(systemctl show -P MainPID audience-sync.service)
step sandbox grep -E "^(CapBnd|NoNewPrivs|Seccomp):" /proc/$pid/status
step reload systemctl reload audience-sync.service
step order by_hand pause --destination segment --yes
step files stat -c "%n %U %a" /var/lib/audience-sync /var/lib/audience-sync/state.db*
quicker=/run/systemd/system/audience-sync.service.d
mkdir $quicker
printf '[Service]\nWatchdogSec=10\nRestartSec=1\n' > $quicker/quicker.conf
systemctl daemon-reload
step quick systemctl restart audience-sync.service
step kill systemctl kill --signal=KILL audience-sync.service
step again until_restarted 1
step alive until_beaten
step freeze systemctl kill --signal=STOP audience-sync.service
step thawed until_restarted 2
step stop systemctl stop audience-sync.service
step result systemctl show -p Result -p ExecMainStatus audience-sync.service
sed -i "s/2h..3h/never/" /etc/audience-sync/config.toml
step wrong systemctl start audience-sync.service
step for-good systemctl show -p NRestarts -p ActiveState -p ExecMainStatus audience-sync.service
step journal journalctl -o cat
"""


TYPED = r"""
export EDITOR=/answers/edit
cd /opt/checkout
"""
SHOWN = r"""
until_told() {
    for _ in $(seq 150); do
        audience-sync history order_completed_last_30days | grep "40 accepted" && return
        sleep 0.2
    done
    false
}
step told until_told
step active systemctl is-active audience-sync.service audience-sync-sync.timer
"""
NOT_TYPED = ("python3 -m venv", "/opt/audience-sync/bin/pip install", "crontab ")
"""Lines that fetch packages, and a program that need not be here: see test_deploy_image.py, and
TestCrontab of test_deploy_hosts.py."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    log = tmp_path / "told"
    log.touch()
    with serve(log=log, write_key=WRITE_KEY) as api:
        yield api


@pytest.fixture
def files(tmp_path: Path, served: Served) -> Path:
    """What a person has put onto the machine, and the program."""
    machine = Machine(root=tmp_path / "files")
    machine.root.mkdir()
    machine.warehouse()
    (machine.root / "shop.duckdb").chmod(0o644)
    config = (
        read("config.toml")
        .replace(PORT, str(machine.port))
        .replace('type = "segment"\n', f'type = "segment"\nendpoint = "{served.endpoint}"\n')
    )
    machine.put("/etc/audience-sync/config.toml", config, mode=0o644)
    machine.put(f"{CREDENTIALS}/segment", WRITE_KEY, mode=0o600)
    machine.put(f"{CREDENTIALS}/warehouse", "duckdb:////shop.duckdb", mode=0o600)
    machine.put("/opt/audience-sync/bin/audience-sync", PROGRAM, mode=0o755)
    for name in ("service", "timer"):
        for unit in DEPLOY.glob(f"systemd/*.{name}"):
            machine.put(f"/etc/systemd/system/{unit.name}", unit.read_text(), mode=0o644)
    users = read("systemd/audience-sync.sysusers")
    machine.put("/etc/sysusers.d/audience-sync.conf", users, mode=0o644)
    machine.put("/etc/systemd/system/drive.service", DRIVE, mode=0o644)
    return tmp_path


def boot(folder: Path, steps: str) -> dict[str, tuple[int, str]]:
    """Exit code and output of each step on a machine with ``folder/files``."""
    (folder / "files" / "drive.sh").write_text(BEGIN + steps)
    places = [sys.base_prefix, sysconfig.get_path("purelib"), TOP]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "bash", BOOT, folder, *places],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^== (.+)\n((?:.*\n)*?)-- (\d+)$", done.stdout, re.MULTILINE)
    return {step: (int(code), text) for step, text, code in found}


def test_the_units_do_what_they_say(files: Path, served: Served) -> None:
    needs_namespaces()
    tool("systemd-analyze", "systemd")
    steps = boot(files, STEPS)
    failed = {step: said for step, said in steps.items() if said[0] != 0}
    assert failed.keys() == {"wrong"}, failed

    # One run, then the daemon: each was told once, and the kill cost nobody anything.
    assert told(served) == everybody()
    assert "StatusText=1 audiences" in steps["status"][1]
    assert steps["sandbox"][1].split() == [
        *("CapBnd:", "0000000000000000"),
        *("NoNewPrivs:", "1"),
        *("Seccomp:", "2"),
    ]
    # What root did beside the daemon left nothing that the daemon may not use.
    owners = {line.split(" ", 1)[1] for line in steps["files"][1].splitlines()}
    assert owners == {"audience-sync 700", "audience-sync 600"}
    assert steps["result"][1].split() == ["Result=success", "ExecMainStatus=0"]
    assert steps["for-good"][1].split() == [
        *("NRestarts=0", "ExecMainStatus=78", "ActiveState=failed")
    ]
    _, journal = steps["journal"]
    assert '"event": "reloaded"' in journal
    assert journal.count("Watchdog timeout") == 1
    assert WRITE_KEY not in journal


def test_what_the_document_types_gets_there(files: Path, served: Served) -> None:
    """Section by section, on one machine, each line as it stands there."""
    needs_namespaces()
    machine = Machine(root=files / "files")
    config = machine.at("/etc/audience-sync/config.toml")
    machine.put("/answers/config.toml", config.read_text(), mode=0o644)
    machine.put("/answers/segment", WRITE_KEY, mode=0o600)
    machine.put("/answers/warehouse", "duckdb:////shop.duckdb", mode=0o600)
    machine.put("/answers/edit", '#!/bin/sh\ncp /answers/config.toml "$1"\n', mode=0o755)
    for name in ("/etc/audience-sync", "/etc/sysusers.d"):
        shutil.rmtree(machine.at(name))
    for unit in machine.at("/etc/systemd/system").glob("audience-sync*"):
        unit.unlink()

    lines = [line for title in ("systemd", "cron") for line in typed(title)]
    assert len(lines) > 15
    script = "".join(f"echo '== {n}'\n{line}\necho \"-- $?\"\n" for n, line in enumerate(lines))
    steps = boot(files, TYPED + script + SHOWN)

    assert len(steps) == len(lines) + 2
    assert {line: steps[str(n)] for n, line in enumerate(lines) if steps[str(n)][0]} == {}
    assert steps["active"][1].split() == ["active", "active"]
    assert told(served) == everybody()


def typed(title: str) -> list[str]:
    """The lines of a section's shell blocks; what they ask for is answered."""
    text = (TOP / "docs" / "deploying.md").read_text()
    section = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    answer = r"\g<0> < /answers/\1"
    return [
        re.sub(r"^install .*/dev/stdin .*/(\w+)$", answer, line)
        for line in lines
        if not line.startswith(NOT_TYPED)
    ]
