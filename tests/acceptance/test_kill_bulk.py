"""``kill -9`` while Crisp is told in bulk, by real processes; then everybody's traits are true.

The bound on requests holds for a first delivery that is killed once (P5, P8).
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest

from audience_sync.sandbox.existing import Existing
from tests.acceptance.program import Program, wait_until
from tests.fakes.crisp import Crisp, crisp_sandbox

COUNT = 2_400

CRISP = """[destinations.crisp]
type = "crisp"
api_key = "${{CRISP_API_KEY}}"
website_id = "{website}"
endpoint = "{base}"
bulk = true
rate = "{rate}/s"
[guard]
max_exits = "100%"
max_exits_24h = "100%"
"""


def program(folder: Path, crisp: Crisp, rate: int) -> Program:
    made = Program(folder=folder, variables={"CRISP_API_KEY": "sandbox:sandbox-key"})
    destination = CRISP.format(website=crisp.website, base=crisp.base, rate=rate)
    made.configure({"vip": ["crisp"]}, destinations=destination)
    return made


def asked(crisp: Crisp) -> int:
    used: int = crisp.get("counts.json")["quota"]["plugin"]["used"]
    return used


def killed_after(made: Program, crisp: Crisp, requests: int) -> bool:
    """Whether it was still at work then."""
    goal = asked(crisp) + requests
    process = made.start("sync", "--all")
    try:
        wait_until(lambda: process.poll() is not None or asked(crisp) >= goal, 60)
        was_at_work = process.poll() is None
    finally:
        process.kill()
        process.communicate()
    return was_at_work


def existing(numbers: Any) -> list[Existing]:
    return [
        Existing(email=f"p{n}@private.example", card={"person": {"nickname": f"p{n}"}}, data={})
        for n in numbers
    ]


def vip(crisp: Crisp) -> dict[str, Any]:
    return {p["email"]: p["data"].get("vip") for p in crisp.people().values()}


@pytest.mark.parametrize(("at", "rate"), [(20, 200), (52, 10)])
def test_a_first_delivery_that_is_killed_takes_few_requests(
    tmp_path: Path, at: int, rate: int
) -> None:
    """While people are listed, and while they are told: with few requests, so slowly."""
    with crisp_sandbox(existing(range(COUNT))) as crisp:
        made = program(tmp_path, crisp, rate)
        made.members("vip", range(COUNT))
        assert killed_after(made, crisp, at)
        done = made.run("sync", "--all")
        assert done.code == 0, done
        assert vip(crisp) == {f"p{n}@private.example": True for n in range(COUNT)}
        assert asked(crisp) <= math.ceil(COUNT / 50) + 1 + math.ceil(COUNT / 500) + 60


@pytest.mark.parametrize("at", [90, 240])
def test_new_people_are_not_told_twice_for_a_kill(tmp_path: Path, at: int) -> None:
    """Two requests each; who was made before the kill is told together with others after it."""
    count = 300
    with crisp_sandbox() as crisp:
        made = program(tmp_path, crisp, 100)
        made.members("vip", range(count))
        assert killed_after(made, crisp, at)
        done = made.run("sync", "--all")
        assert done.code == 0, done
        assert vip(crisp) == {f"p{n}@private.example": True for n in range(count)}
        found = [p["data"]["user_id"] for p in crisp.people().values()]
        assert len(found) == count
        assert asked(crisp) <= 2 * count + 40


def test_again_and_again(tmp_path: Path) -> None:
    draw = random.Random(7)
    numbers = range(120)
    with crisp_sandbox(existing(numbers[::2])) as crisp:
        made = program(tmp_path, crisp, 100)
        members = {*draw.sample(numbers, 80)}
        for _ in range(6):
            left = {*draw.sample(sorted(members), 9)}
            members = (members - left) | {*draw.sample(numbers, 9)}
            made.members("vip", sorted(members))
            killed_after(made, crisp, draw.randrange(40))
        for _ in range(2):  # what was captured before the last kill, and what comes after it
            done = made.run("sync", "--all")
            assert done.code == 0, done
        found, routes = vip(crisp), crisp.get("counts.json")["days"].values()
    assert sum(of["crisp"]["PATCH batch/data"]["200"] for of in routes) > 5
    for n in numbers:
        told = found.get(f"p{n}@private.example")
        assert told is True if n in members else not told, n
