"""What a newcomer and CI type: make, on a machine with nothing but Python."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
MAKEFILE = (TOP / "Makefile").read_text()


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``make`` as typed in a shell: nothing of a make that runs these tests gets through."""
    inherited = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "PYTHON"}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=TOP,
        env={name: value for name, value in os.environ.items() if name not in inherited},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_plain_make_explains_every_target() -> None:
    (declared,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    done = make()
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^make (\w+) +\S", done.stdout, re.MULTILINE) == declared.split()


@pytest.mark.parametrize(
    "part",
    [
        "pip install",
        "ruff check .",
        "ruff format --check .",
        "mypy --strict audience_sync",
        "lint-imports",
        "pytest -n 2",
    ],
)
def test_make_test_does_everything_from_nothing(part: str, tmp_path: Path) -> None:
    done = make("--dry-run", "test", f"VENV={tmp_path / 'none'}")
    assert done.returncode == 0, done.stderr
    assert part in done.stdout


def test_an_old_python_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    old = tmp_path / "python3.10"
    pretend = "import sys; sys.version_info = (3, 10, 14); exec(sys.argv[1])"
    old.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{pretend}" "$2"\n')
    old.chmod(0o755)
    done = make("venv", f"VENV={tmp_path / 'none'}", f"PYTHON={old}")
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert not (tmp_path / "none").exists()


def test_ci_does_the_same_as_a_person() -> None:
    script = TOP / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().endswith("exec make test\n")


def test_pins_are_names_and_versions_without_an_address() -> None:
    pins = (TOP / "constraints.txt").read_text().splitlines()
    assert len(pins) > 30
    pin = re.compile(r"[a-z0-9-]+==[0-9a-z.]+( ; [a-z_]+ [!=]= '\w+'( or [a-z_]+ == '\w+')?)?")
    assert [line for line in pins if not pin.fullmatch(line)] == []
