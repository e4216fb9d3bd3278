"""``deploy/docker/Dockerfile``, built and run without an engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.acceptance.deployed import (
    WRITE_KEY,
    Machine,
    everybody,
    needs_namespaces,
    read,
    told,
)
from tests.acceptance.image import Image, build, stages
from tests.acceptance.program import LONGEST, TOP, wait_until
from tests.fakes.tracking_api import Served, serve

VERSION = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["version"]
CONTAINER = Path(__file__).with_name("container.sh")
TOKEN = "status-token-0123456789"


@pytest.fixture(scope="module")
def built() -> Iterator[tuple[Machine, Image]]:
    """In a folder that every user may enter."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield build(Path(name))


@pytest.fixture
def machine(built: tuple[Machine, Image]) -> Machine:
    """Without what an earlier test has left."""
    machine, _ = built
    for folder in ("/etc/audience-sync", "/run/secrets"):
        shutil.rmtree(machine.at(folder), ignore_errors=True)
    for path in machine.at("/var/lib/audience-sync").iterdir():
        path.unlink()
    return machine


@pytest.fixture
def image(built: tuple[Machine, Image]) -> Image:
    return built[1]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    log = tmp_path / "told"
    log.touch()
    with serve(log=log, write_key=WRITE_KEY) as api:
        yield api


def hand_over(machine: Machine, secrets: dict[str, str]) -> dict[str, str]:
    return {f"/run/secrets/{name}": secret for name, secret in secrets.items()}


class TestImage:
    def test_it_holds_the_program_and_no_way_to_install_more(
        self, machine: Machine, image: Image
    ) -> None:
        done = machine.run(image_command(machine, image, "--version"), image.env, "/")
        assert done.code == 0, done
        assert VERSION in done.out
        modules = machine.at("/opt/audience-sync/lib")
        (package,) = modules.glob("python3*/site-packages/audience_sync")
        assert (package / "migrations" / "env.py").is_file()
        assert not list(modules.glob("python3*/site-packages/pip*"))
        assert not list(package.rglob("tests"))

    def test_both_stages_have_the_python_that_the_tests_run_on(self) -> None:
        (_, _), (last, _) = stages()
        assert re.fullmatch(r"python:3\.11-slim-\w+", last)
        assert sys.version_info[:2] >= (3, 11)

    def test_its_user_is_nobody_in_particular_and_owns_the_state(
        self, machine: Machine, image: Image
    ) -> None:
        assert re.fullmatch(r"\d{5}:\d{5}", image.said["USER"])
        state = machine.at(image.said["WORKDIR"]).stat()
        assert state.st_mode & 0o777 == 0o700
        if os.geteuid() == 0:
            assert f"{state.st_uid}:{state.st_gid}" == image.said["USER"]

    def test_what_is_published_is_what_is_asked(self, image: Image) -> None:
        assert image.said["EXPOSE"] == "8340"
        assert any("8340" in word for word in image.healthcheck())


class TestFirstProcess:
    """In a process namespace of its own the kernel ignores signals that nobody waits for."""

    @pytest.fixture
    def container(
        self, machine: Machine, image: Image, served: Served
    ) -> Iterator[tuple[subprocess.Popen[str], int]]:
        needs_namespaces()
        config = read_config("kubernetes/config.yaml")
        secrets = {
            "store": machine.rooted("sqlite:////var/lib/audience-sync/state.db"),
            "segment": WRITE_KEY,
            "warehouse": machine.warehouse(),
            "status_token": TOKEN,
        }
        machine.configure(config, served.endpoint, hand_over(machine, secrets))
        own(machine, image.said["USER"])
        command = image_command(machine, image, *json.loads(image.said["CMD"]))
        user, _, group = image.said["USER"].partition(":")
        unshare = ["unshare", "--pid", "--fork", "--mount", "--mount-proc"]
        capsule = [*unshare, "bash", str(CONTAINER), sys.base_prefix, user, group, *command]
        volume = machine.at("/var/tmp")  # instead of /tmp, which is ours
        volume.mkdir(exist_ok=True)
        volume.chmod(0o1777)
        variables = image.env | {"TMPDIR": "/var/tmp"}
        with machine.start(capsule, variables, image.said["WORKDIR"]) as outside:
            children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
            try:
                wait_until(lambda: told(served) == everybody())
                yield outside, int(children.read_text())
            finally:
                # Another user's process does not end with who started it.
                for child in children.read_text().split() if children.exists() else ():
                    os.kill(int(child), signal.SIGKILL)
                outside.kill()

    def test_it_reads_its_configuration_again(
        self, container: tuple[subprocess.Popen[str], int], machine: Machine
    ) -> None:
        """By ``kill -HUP 1`` inside, as the document types it, or by the engine."""
        outside, first = container
        config = machine.at("/etc/audience-sync/config.toml")
        config.write_text(config.read_text().replace('every = "2h..3h"', 'every = "never"'))
        os.kill(first, signal.SIGHUP)
        lines = iter(outside.stdout or ())
        assert any("not reloaded" in line and "schedule.every" in line for line in lines)

    @pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
    def test_it_stops_when_told(
        self, container: tuple[subprocess.Popen[str], int], signal_: signal.Signals
    ) -> None:
        outside, first = container
        os.kill(first, signal_)
        out, _ = outside.communicate(timeout=LONGEST)
        assert outside.returncode == 0, out
        assert '"event": "stopped"' in out

    def test_its_health_is_asked(
        self, container: tuple[subprocess.Popen[str], int], machine: Machine, image: Image
    ) -> None:
        outside, first = container
        program, *rest = [word.replace("8340", str(machine.port)) for word in image.healthcheck()]
        check = [in_path(machine, image, program), *rest]
        assert machine.run(check, image.env, "/").code == 0
        os.kill(first, signal.SIGTERM)
        outside.communicate(timeout=LONGEST)
        assert machine.run(check, image.env, "/").code == 1

    def test_it_may_do_nothing_and_writes_where_the_volumes_are(
        self, container: tuple[subprocess.Popen[str], int], machine: Machine, image: Image
    ) -> None:
        outside, first = container
        status = Path(f"/proc/{first}/status").read_text()
        user, _, _ = image.said["USER"].partition(":")
        assert re.search(rf"^Uid:\t{user}\t{user}\t{user}\t{user}$", status, re.MULTILINE)
        assert re.search(r"^CapBnd:\t0+$", status, re.MULTILINE)
        assert re.search(r"^NSpid:\t\d+\t1$", status, re.MULTILINE)
        os.kill(first, signal.SIGTERM)
        outside.communicate(timeout=LONGEST)
        written = [p for p in machine.root.rglob("*") if p.lstat().st_uid == int(user)]
        given = [
            machine.at(place) for place in ("/var/lib/audience-sync", "/var/tmp", "/run/secrets")
        ]
        assert [p for p in written if not any(map(p.is_relative_to, given))] == []


def image_command(machine: Machine, image: Image, *arguments: str) -> list[str]:
    program, *rest = image.command(*arguments)
    return [in_path(machine, image, program), *rest]


def in_path(machine: Machine, image: Image, program: str) -> str:
    """A program, found as a container runtime finds it: in the image's PATH."""
    found = shutil.which(program, path=machine.rooted(image.env["PATH"]))
    assert found is not None
    assert Path(found).is_relative_to(machine.root)
    return found


def read_config(name: str) -> str:
    documents = list(yaml.safe_load_all(read(name)))
    text: str = documents[0]["data"]["config.toml"]
    return text


def own(machine: Machine, user: str) -> None:
    number, _, group = user.partition(":")
    folder = machine.at("/run/secrets")
    for path in (folder, *folder.iterdir()):
        os.chown(path, int(number), int(group))
    (machine.root / "shop.duckdb").chmod(0o644)
