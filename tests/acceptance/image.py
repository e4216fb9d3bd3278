"""``deploy/docker/Dockerfile`` built without an engine: its instructions, done below a folder.

What pip would fetch is taken from the environment that runs the tests, so no network is needed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.deployed import Machine
from tests.acceptance.program import TOP

DOCKERFILE = TOP / "deploy" / "docker" / "Dockerfile"
KNOWN = {"COPY", "RUN", "ENV", "USER", "WORKDIR", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
INSTALLED_ALREADY = {
    "PIP_NO_DEPS": "1",
    "PIP_NO_INDEX": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}


@dataclass(kw_only=True)
class Image:
    """What the last stage says of itself."""

    env: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: str) -> list[str]:
        return [*json.loads(self.said["ENTRYPOINT"]), *arguments]

    def default(self) -> list[str]:
        return self.command(*json.loads(self.said["CMD"]))

    def healthcheck(self) -> list[str]:
        command: list[str] = json.loads(self.said["HEALTHCHECK"].partition(" CMD ")[2])
        return command


def stages() -> list[tuple[str, list[tuple[str, str]]]]:
    """The ``FROM`` line of each stage, and its instructions."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    text = re.sub(r"\\\n\s*", "", text)
    found: list[tuple[str, list[tuple[str, str]]]] = []
    for line in filter(None, text.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append((rest, []))
        else:
            assert word in KNOWN, line
            found[-1][1].append((word, rest))
    return found


def last_stage() -> dict[str, str]:
    """What the image says of itself, by instruction; the last one counts."""
    _, instructions = stages()[-1]
    return dict(instructions)


def context(folder: Path) -> None:
    """What is sent to the builder: all is ignored but what is named."""
    ignored = [x for x in (TOP / ".dockerignore").read_text().splitlines() if x and x[0] != "#"]
    assert ignored[0] == "*"
    for pattern in ignored[1:]:
        if not pattern.startswith("!"):
            assert pattern == "**/__pycache__"
            continue
        source, target = TOP / pattern[1:], folder / pattern[1:]
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


def build(folder: Path) -> tuple[Machine, Image]:
    """The last stage's files below ``folder/image``."""
    context(folder / "context")
    machine, image = Machine(root=folder / "image", runs_checkout=False), Image()
    (first, instructions), (last, finishing) = stages()
    name = first.partition(" AS ")[2]
    _do(machine, instructions, folder, image)
    machine.root.rename(folder / name)
    assert first.startswith(last), "a virtual environment needs the Python it was made with"
    image.env.clear()
    _do(machine, finishing, folder, image)
    _add_dependencies(machine)
    return machine, image


def _do(machine: Machine, instructions: list[tuple[str, str]], folder: Path, image: Image) -> None:
    machine.root.mkdir(parents=True)
    (machine.root / "var" / "lib").mkdir(parents=True)
    place = machine.root
    for word, rest in instructions:
        if word == "WORKDIR":
            place = machine.at(rest)
            place.mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            _copy(machine, shlex.split(rest), place, folder)
        elif word == "RUN":
            _run(machine, rest, place)
        elif word == "ENV":
            image.env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        image.said[word] = rest


def _copy(machine: Machine, words: list[str], place: Path, folder: Path) -> None:
    *options, source, target = words
    if options:
        (option,) = options
        stage = folder / option.removeprefix("--from=")
        shutil.copytree(stage / source.lstrip("/"), machine.at(target), symlinks=True)
    else:
        assert (source, target) == (".", ".")
        shutil.copytree(folder / "context", place, dirs_exist_ok=True)


def _run(machine: Machine, line: str, place: Path) -> None:
    if os.geteuid() != 0:  # nobody else gives files away
        line = re.sub(r"-o \d+ -g \d+", "", line)
    binaries = sysconfig.get_path("scripts")
    done = subprocess.run(
        ["/bin/sh", "-c", machine.rooted(line)],
        cwd=place,
        env={"PATH": f"{binaries}:/usr/bin:/bin", "HOME": str(place), **INSTALLED_ALREADY},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, f"RUN {line}\n{done.stdout}\n{done.stderr}"


def _add_dependencies(machine: Machine) -> None:
    """They come after the wheel, as plain folders: an editable install in them is not followed."""
    (site_packages,) = machine.at("/opt/audience-sync/lib").glob("python3*/site-packages")
    places = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (site_packages / "dependencies.pth").write_text("\n".join(places) + "\n")
