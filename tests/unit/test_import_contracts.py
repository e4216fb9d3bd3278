"""Every contract of ``pyproject.toml`` notices the import that it forbids."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
CONTRACTS = [
    contract["name"]
    for contract in tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
]
PLANTED = {
    "newcomer.py": "",
    "domain/planted.py": "import pydantic",
    "pipeline/planted.py": "import apscheduler",
    "engines/planted.py": "import sqlalchemy",
    "cli/planted.py": "import duckdb",
    "destinations/planted.py": "import httpx",
    "scheduler/planted.py": "import uvicorn",
    "__main__.py": "import audience_sync.config",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the linter says of a copy of the package with one bad import for each contract."""
    top = tmp_path_factory.mktemp("planted")
    shutil.copy(TOP / "pyproject.toml", top)
    # Another process may be writing bytecode there, under names that soon are gone.
    sources = shutil.ignore_patterns("__pycache__")
    shutil.copytree(TOP / "audience_sync", top / "audience_sync", ignore=sources)
    for name, line in PLANTED.items():
        with (top / "audience_sync" / name).open("a") as file:
            file.write(f"\n{line}\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=top,
        env={**os.environ, "PYTHONPATH": str(top)},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_contract_is_broken_by_what_it_forbids(report: str, contract: str) -> None:
    assert f"{contract} BROKEN" in report
