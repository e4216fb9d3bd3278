"""What a newcomer and CI type: make, on a machine with nothing but Python."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import httpx
import pytest

from tests.acceptance.program import wait_until

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
        "apt-get install",
        "chromium",
    ],
)
def test_make_test_does_everything_from_nothing(part: str, tmp_path: Path) -> None:
    done = make("--dry-run", "test", f"VENV={tmp_path / 'none'}")
    assert done.returncode == 0, done.stderr
    assert part in done.stdout


def demo(folder: Path) -> subprocess.Popen[str]:
    (script,) = re.findall(r"^\t@cd \$\(DEMO\) .* sh \$\(CURDIR\)/(\S+)$", MAKEFILE, re.MULTILINE)
    (days,) = re.findall(r"^DAYS +:= (.+)$", MAKEFILE, re.MULTILINE)
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        ["sh", TOP / script],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(TOP), "DAYS": days},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Whoever was started in the background ignores SIGINT, and so do all its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def is_gone(folder: Path) -> bool:
    """The sandbox that the demo in ``folder`` began; its address is in a file."""
    endpoint = re.findall(r'^endpoint = "(.+)/v1"$', (folder / "sandbox.toml").read_text(), re.M)[0]
    try:
        httpx.get(endpoint)
    except httpx.ConnectError:
        return True
    return False


def test_the_demo_tells_a_sandbox_that_ends_with_it(tmp_path: Path) -> None:
    process = demo(tmp_path)
    shown, _ = process.communicate(timeout=100)
    assert process.returncode == 0, shown
    told = re.findall(r" (\d+) with order_completed_last_30days = (\w+)\n", shown)
    # In Segment, then in Crisp, where 12 of the members have no e-mail.
    assert told == [("4", "false"), ("182", "true"), ("4", "false"), ("170", "true")]
    assert is_gone(tmp_path)


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "nobody reads"])
def test_the_sandbox_ends_when_the_demo_is_cut_short(tmp_path: Path, how: str) -> None:
    process = demo(tmp_path)
    assert process.stdout is not None
    try:
        wait_until((tmp_path / "sandbox.toml").exists)
        if how == "nobody reads":
            process.stdout.close()
        else:
            process.send_signal(signal.Signals[how])
        assert process.wait(60) != 0
        wait_until(lambda: is_gone(tmp_path))
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


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
