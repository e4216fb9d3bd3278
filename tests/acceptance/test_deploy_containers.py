"""The commands of containers as written, with the configurations as written."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from types import MappingProxyType

import pytest
from sqlalchemy import make_url

from tests.acceptance.deployed import WRITE_KEY, Machine, everybody, read, told
from tests.acceptance.image import last_stage
from tests.acceptance.manifests import SECRET, compose, configuration, container_of, documents
from tests.acceptance.program import LONGEST, Done, wait_until
from tests.fakes.tracking_api import Served, serve

SAID = last_stage()
TOKEN = "status-token-0123456789"


class TestAsWritten:
    """The commands of containers, by the image's entry point, with the configuration as written."""

    @pytest.fixture
    def served(self, tmp_path: Path) -> Iterator[Served]:
        log = tmp_path / "told"
        log.touch()
        with serve(log=log, write_key=WRITE_KEY) as api:
            yield api

    @pytest.fixture
    def machine(self, tmp_path: Path) -> Machine:
        return made(tmp_path / "root")

    def hand_over(
        self, machine: Machine, served: Served, text: str, **secrets: str
    ) -> dict[str, str]:
        """The secrets that the configuration names, and no more; the variables of the image."""
        secrets |= {"segment": WRITE_KEY, "warehouse": machine.warehouse(), "status_token": TOKEN}
        assert set(SECRET.findall(text)) == secrets.keys()
        files = {f"/run/secrets/{name}": secret for name, secret in secrets.items()}
        machine.configure(text, served.endpoint, files)
        return dict(pair.split("=", 1) for pair in SAID["ENV"].split())

    def run(self, machine: Machine, arguments: Sequence[str], variables: dict[str, str]) -> Done:
        return machine.run(command(machine, arguments), variables, SAID["WORKDIR"])

    def start(
        self, machine: Machine, arguments: Sequence[str], variables: dict[str, str]
    ) -> subprocess.Popen[str]:
        return machine.start(command(machine, arguments), variables, SAID["WORKDIR"])

    def test_the_cron_job_tells_everybody(
        self, machine: Machine, served: Served, postgres_url: str
    ) -> None:
        variables = self.hand_over(machine, served, configuration(), store=native(postgres_url))
        database = make_url(postgres_url).database
        for said in (f"new store: the PostgreSQL database {database} ", ""):
            done = self.run(machine, container_of("cronjob.yaml")["args"], variables)
            assert (done.code, done.err[: len(said) or None]) == (0, said), done
            assert told(served) == everybody()

    def test_the_replicas_tell_everybody_once(
        self, tmp_path: Path, served: Served, postgres_url: str
    ) -> None:
        (deployment,) = documents("deployment.yaml")
        arguments = container_of("deployment.yaml")["args"]
        pods = [made(tmp_path / f"pod-{n}") for n in range(deployment["spec"]["replicas"])]
        assert len(pods) > 1
        with ExitStack() as stack:
            for pod in pods:
                store = native(postgres_url)
                variables = self.hand_over(pod, served, configuration(), store=store)
                process = stack.enter_context(self.start(pod, arguments, variables))
                stack.enter_context(stopping(process))
            wait_until(lambda: told(served) == everybody())
            for pod in pods:
                is_ready(pod, "deployment.yaml")
        assert told(served) == everybody()

    def test_the_one_with_sqlite_as_its_comment_says(
        self, machine: Machine, served: Served
    ) -> None:
        (store,) = re.findall(r"sqlite:/+\S+", read("kubernetes/deployment-sqlite.yaml"))
        variables = self.hand_over(machine, served, configuration(), store=machine.rooted(store))
        arguments = container_of("deployment-sqlite.yaml")["args"]
        with self.start(machine, arguments, variables) as process, stopping(process):
            wait_until(lambda: told(served) == everybody())
            is_ready(machine, "deployment-sqlite.yaml")

    def test_compose_with_its_password(
        self, machine: Machine, served: Served, postgres_url: str
    ) -> None:
        """The server here has another name, and asks for no password."""
        url = make_url(postgres_url)
        text = read("docker/config/config.toml")
        text = text.replace("@store/audience_sync", f"@/{url.database}?host={url.query['host']}")
        text = text.replace("//audience_sync:", f"//{url.username}:")
        variables = self.hand_over(machine, served, text, store_password="hunter22")
        done = self.run(machine, ["check", "--offline"], variables)
        assert (done.code, done.err) == (0, ""), done
        arguments = compose()["services"]["audience-sync"]["command"]
        with self.start(machine, arguments, variables) as process, stopping(process):
            wait_until(lambda: told(served) == everybody())


def made(root: Path) -> Machine:
    machine = Machine(root=root)
    machine.install()
    return machine


def command(machine: Machine, arguments: Sequence[str]) -> list[str]:
    return [str(machine.at("/opt/audience-sync/bin/audience-sync")), *arguments]


@contextmanager
def stopping(daemon: subprocess.Popen[str]) -> Iterator[None]:
    """It is told to stop at the end, and must do so."""
    try:
        yield
        daemon.terminate()
        out, _ = daemon.communicate(timeout=LONGEST)
    finally:
        daemon.kill()
    assert daemon.returncode == 0, out
    assert '"event": "stopped"' in out
    assert TOKEN not in out


def is_ready(machine: Machine, name: str) -> None:
    """By the probes as they stand in the file; and the rest asks for the token."""
    container = container_of(name)
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        path = container[probe]["httpGet"]["path"]
        wait_until(partial(answers, machine, path))
    assert answer(machine, "/metrics") == 401
    assert answer(machine, "/metrics", {"Authorization": f"Bearer {TOKEN}"}) == 200


def answers(machine: Machine, path: str) -> bool:
    return answer(machine, path) == 200


def answer(machine: Machine, path: str, headers: Mapping[str, str] = MappingProxyType({})) -> int:
    """As the kubelet asks: without a name, by the address of the pod. 0: nobody is there yet."""
    connection = HTTPConnection("127.0.0.1", machine.port, timeout=LONGEST)
    with closing(connection), suppress(ConnectionRefusedError):
        connection.request("GET", path, headers=dict(headers))
        return connection.getresponse().status
    return 0


def native(url: str) -> str:
    """Without the driver, as people write it."""
    return url.replace("postgresql+psycopg://", "postgresql://")
