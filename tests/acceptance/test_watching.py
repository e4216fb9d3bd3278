"""The daemon as it is watched: by probes, by Prometheus, and by what the documents say of both."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import parser

from tests.acceptance.daemon import ENDS_WITHIN, Daemon, running
from tests.acceptance.program import TOP, Program, free_port, wait_until

OPERATIONS = TOP / "docs" / "operations.md"
TOKEN = "4fb2c19e07d86a35"
STATUS = '[status]\nlisten = "127.0.0.1:0"\n'
CALLS = '[destinations.calls]\ntype = "ndjson"\npath = "calls.ndjson"\nquota = "1000/day"\n'
PREFIX = "audience_sync_"
ONLY_SOMETIMES = {"audience_sync_delivery_eta_timestamp_seconds"}
"""Has no sample unless a first delivery is under way."""

FOREIGN = {"up"}
"""What Prometheus makes itself."""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    made = Program(folder=tmp_path, variables={"STATUS_TOKEN": TOKEN})
    made.configure(destinations=CALLS, more=STATUS)
    made.members("vip", range(30))
    return made


def port(daemon: Daemon, count: int = 1) -> int:
    return int(daemon.wait_for("status server listens", count)["port"])


def ask(port: int, path: str, **headers: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{port}{path}", headers=headers, timeout=30)


def ports(daemon: Daemon) -> list[int]:
    """All that it had; each try to reload has another until it may."""
    return [int(line["port"]) for line in daemon.said("status server listens")]


def is_ready(port: int) -> bool:
    with suppress(httpx.TransportError):
        return ask(port, "/readyz").status_code == 200
    return False


def samples(text: str) -> dict[str, float]:
    return {
        sample.name.removeprefix(PREFIX) + "".join(f" {value}" for value in sample.labels.values()):
        sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }  # fmt: skip


def test_from_start_to_stop(program: Program) -> None:
    with running(program) as daemon:
        at = port(daemon)
        assert ask(at, "/healthz").status_code == 200
        wait_until(lambda: ask(at, "/readyz").status_code == 200)
        daemon.wait_for("delivered")
        success = "delivery_last_success_timestamp_seconds vip calls"
        wait_until(lambda: success in samples(ask(at, "/metrics").text))
        found = samples(ask(at, "/metrics").text)
        # A client that says nothing does not delay the stop.
        with socket.create_connection(("127.0.0.1", at)):
            assert daemon.stop() == 0
    assert found["audience_members vip"] == 30
    assert found["delivered_members_total calls initial accepted"] == 30
    assert found["captures_total vip committed"] == 1
    assert found["delivery_pending_members vip calls"] == 0
    assert found["destination_quota_used_calls calls"] >= 30
    assert found["store_reachable"] == 1
    assert "this is a bug" not in daemon.log.read_text()
    with pytest.raises(httpx.ConnectError):
        ask(at, "/healthz")


def test_a_port_that_is_taken_ends_the_start_until_the_next_one(program: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        program.configure(more=f'[status]\nlisten = "127.0.0.1:{number}"\n')
        with running(program) as daemon:
            assert daemon.process.wait(ENDS_WITHIN) == 1
    told = daemon.log.read_text()
    assert f"status.listen: port {number} of 127.0.0.1 is taken by process {os.getpid()} (" in told
    assert "end what listens there, or choose another port" in told
    assert "Traceback" not in told


def test_an_address_that_is_not_there_yet_is_no_wrong_configuration(program: Program) -> None:
    more = '[status]\nlisten = "192.0.2.7:8340"\ntoken = "${STATUS_TOKEN}"\n'
    program.configure(more=more)
    done = program.run("run")
    assert done.code == 1
    ended = json.loads(done.err.splitlines()[-1])
    assert ended["problems"] == ["status.listen: this machine has no address 192.0.2.7"]
    assert ended["hint"].startswith("it may come later")
    assert not (program.folder / "state.db").exists()


def test_a_port_that_is_taken_keeps_a_reload_out_until_it_is_free(program: Program) -> None:
    program.members("winback", range(5))
    with running(program) as daemon:
        at = port(daemon)
        daemon.wait_for("delivered")
        number = free_port()
        with socket.create_server(("127.0.0.1", number)):
            more = f'[status]\nlisten = "127.0.0.1:{number}"\n'
            program.configure({"vip": ["calls"], "winback": ["calls"]}, more=more)
            daemon.send(signal.SIGHUP)
            (problem,) = daemon.wait_for("not reloaded")["problems"]
            assert f"status.listen: port {number} of 127.0.0.1 is taken by process" in problem
            assert not daemon.said("captured", audience="winback")
            port(daemon, 2)
            wait_until(lambda: is_ready(ports(daemon)[-1]))
        assert daemon.wait_for("reloaded")["audiences"] == 2
        assert ask(number, "/healthz").status_code == 200
        daemon.wait_for("captured", audience="winback")
        assert ports(daemon)[0] == at
        assert ports(daemon)[-1] == number
        for former in ports(daemon)[:-1]:
            with pytest.raises(httpx.ConnectError):
                ask(former, "/healthz")
        assert daemon.stop() == 0


def test_open_to_others_without_a_token(program: Program) -> None:
    program.configure(more='[status]\nlisten = "0.0.0.0:0"\n')
    for command in ("run", "check", "sync"):
        done = program.run(command)
        assert done.code == 78
        assert re.search(r"config\.toml:\d+: status\.listen: other machines can reach", done.err)
    assert not (program.folder / "state.db").exists()


def test_a_reload_changes_who_may_ask(program: Program) -> None:
    with running(program) as daemon:
        first = port(daemon)
        daemon.wait_for("started")
        assert ask(first, "/metrics").status_code == 200
        program.configure(destinations=CALLS, more=STATUS + 'token = "${STATUS_TOKEN}"\n')
        daemon.send(signal.SIGHUP)
        daemon.wait_for("reloaded")
        second = port(daemon, 2)
        assert ask(second, "/metrics").status_code == 401

        def scraped() -> str:
            return ask(second, "/metrics", authorization=f"Bearer {TOKEN}").text

        wait_until(lambda: samples(scraped())["reloads_total done"] == 1)
        assert TOKEN not in scraped()
        program.configure(destinations=CALLS)
        daemon.send(signal.SIGHUP)
        daemon.wait_for("reloaded", 2)
        with pytest.raises(httpx.ConnectError):
            ask(second, "/healthz")
        assert daemon.stop() == 0
    assert TOKEN not in daemon.log.read_text()


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Every metric of a daemon at work, by the name that queries use, and its labels."""
    program = Program(folder=tmp_path_factory.mktemp("watched"))
    program.configure(destinations=CALLS, more=STATUS)
    program.members("vip", range(30))
    found: dict[str, set[str]] = {}
    with running(program) as daemon:
        at = port(daemon)
        daemon.wait_for("delivered")
        wait_until(lambda: "success_timestamp_seconds{" in ask(at, "/metrics").text)
        for family in parser.text_string_to_metric_families(ask(at, "/metrics").text):
            assert family.documentation.endswith(".")
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_the_metrics_are_those_of_the_document(families: dict[str, set[str]]) -> None:
    rows = re.findall(rf"^\| `({PREFIX}\w+)` \|(.*?)\| ", OPERATIONS.read_text(), re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    ours = {name: labels for name, labels in families.items() if name.startswith(PREFIX)}
    assert {n: v for n, v in documented.items() if n not in ONLY_SOMETIMES} == ours
    assert set(documented) >= ONLY_SOMETIMES


def yaml_blocks(key: str) -> list[Any]:
    texts = re.findall(r"^```yaml\n(.*?)^```$", OPERATIONS.read_text(), re.MULTILINE | re.DOTALL)
    return [block[key] for block in map(yaml.safe_load, texts) if key in block]


def test_the_alerts_ask_for_what_there_is(families: dict[str, set[str]]) -> None:
    ((group,),) = yaml_blocks("groups")
    asked = set()
    for rule in group["rules"]:
        for name in re.findall(r"\b(?:audience_sync_\w+|up)\b", rule["expr"]):
            asked.add(name)
            assert name in {*families, *ONLY_SOMETIMES, *FOREIGN}, rule
        by = re.findall(r"\bon \((.*?)\)", rule["expr"])
        by += re.findall(r"\bby \((.*?)\)", rule["expr"])
        labels = {label for names in by for label in names.split(", ")}
        assert labels <= {"", "audience", "destination"}
        # Two daemons on one store say the same: that is one alert.
        says_the_same = re.search(r"audience_sync_(audience|delivery|destination)_", rule["expr"])
        assert by or not says_the_same, rule
    assert len(asked) >= 10
    names = [rule["alert"] for rule in group["rules"]]
    assert len(set(names)) == len(names)


def test_the_scrape_is_of_where_the_daemon_listens_by_default() -> None:
    ((job,),) = yaml_blocks("scrape_configs")
    assert job["static_configs"] == [{"targets": ["127.0.0.1:8340"]}]
    assert 'up{job="audience-sync"}' in OPERATIONS.read_text()
    assert job["job_name"] == "audience-sync"
