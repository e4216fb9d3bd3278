"""The wheel works where there is no checkout: what a user gets from ``pip install``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
VERSION = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["version"]
SHOP = ("orders.csv", "customers.csv")


def run(command: Sequence[str | Path], folder: Path) -> str:
    """Standard output of a command that knows nothing of the checkout."""
    strange = {"PYTHONPATH", "VIRTUAL_ENV", "AUDIENCE_SYNC_CONFIG"}
    done = subprocess.run(
        command,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in strange},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True, kw_only=True, slots=True)
class Distributions:
    wheel: Path
    sdist: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Built as a release is: an sdist of the checkout, then the wheel from nothing but that."""
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, TOP], folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Distributions(wheel=wheel, sdist=sdist)


@pytest.fixture(scope="module")
def installed(built: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of an environment with the wheel, and the dependencies of this one.

    They come after the wheel, as a plain folder: an editable install in it is not followed.
    """
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False, symlinks=True)
    binaries = folder / "bin"
    pip = [sys.executable, "-m", "pip", "--python", binaries / "python", "--quiet"]
    run([*pip, "install", "--no-deps", "--no-index", built.wheel], folder)
    places = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (site_packages,) = folder.glob("lib/python3*/site-packages")
    (site_packages / "dependencies.pth").write_text("\n".join(places) + "\n")
    return binaries


def test_the_distributions_hold_what_they_need(built: Distributions) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        names = set(wheel.namelist())
    migrations = {
        f"audience_sync/{path.relative_to(TOP)}" for path in TOP.glob("migrations/**/*.py")
    }
    templates = {"config.toml", *(f"examples/shop/{name}" for name in SHOP)}
    assert migrations
    assert migrations <= names
    assert {f"audience_sync/templates/{name}" for name in templates} <= names
    assert not [name for name in names if name.startswith(("tests/", "bench/", "migrations/"))]
    with tarfile.open(built.sdist) as sdist:
        packed = set(sdist.getnames())
    deployed = {path.relative_to(TOP) for path in (TOP / "deploy").rglob("*") if path.is_file()}
    needed = {"migrations/env.py", "constraints.txt", ".dockerignore", *map(str, deployed)}
    assert len(deployed) > 10
    assert {f"audience_sync-{VERSION}/{name}" for name in needed} <= packed


def test_the_installed_program_runs_the_example(installed: Path, tmp_path: Path) -> None:
    program = installed / "audience-sync"
    where = run(
        [installed / "python", "-c", "import audience_sync; print(audience_sync.__file__)"],
        tmp_path,
    )
    assert Path(where).is_relative_to(installed.parent), "not the checkout"
    assert VERSION in run([program, "--version"], tmp_path)
    assert VERSION in run([installed / "python", "-m", "audience_sync", "--version"], tmp_path)

    run([program, "init", "--example"], tmp_path)
    run([program, "sync", "--now", "2026-01-31T00:00:00Z"], tmp_path)

    calls = [json.loads(line) for line in (tmp_path / "calls.ndjson").read_text().splitlines()]
    assert len(calls) > 100
    assert {call["type"] for call in calls} == {"identify"}
    assert len({call["messageId"] for call in calls}) == len(calls)
