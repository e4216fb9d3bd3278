"""A dangerous capture waits for a person: held, shown, approved or discarded."""

from __future__ import annotations

import pytest

from tests.acceptance.program import SNAPSHOTS, Program, people, told

NOW = "2026-03-01T06:00Z"
LIMITS = "[guard]\nfloor = 10\nmax_initial = 100\n"


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Program, dict[str, bytes]]:
    program = Program(folder=tmp_path_factory.mktemp("seeded"))
    program.configure(more=LIMITS)
    program.members("vip", range(100))
    assert program.run("sync", "--now", NOW).code == 0
    return program, program.files()


@pytest.fixture
def program(seeded: tuple[Program, dict[str, bytes]]) -> Program:
    """A hundred members, told."""
    made, files = seeded
    made.put_back(files)
    return made


def held_plan(program: Program) -> str:
    """The plan that ``sync`` holds, taken from the command that it says would let it go."""
    done = program.run("sync", "vip")
    assert done.code == 3, done
    (line,) = [line for line in done.lines() if "audience-sync approve " in line]
    return line.split()[-1]


def test_an_empty_source_is_held_until_a_person_says_yes(program: Program) -> None:
    (program.folder / "vip.csv").write_text("user_id,email\n")
    plan = held_plan(program)
    assert len(program.calls()) == 100, "nothing was sent"

    unasked = program.run("approve", plan)
    assert unasked.code == 2
    assert "say it with --yes" in unasked.err
    declined = program.on_terminal("approve", plan, typed="n\n")
    assert declined.code == 1
    assert "nothing was changed" in declined.err
    assert program.stored(SNAPSHOTS) == [("vip", 1, "current"), ("vip", 2, "held")]

    approved = program.on_terminal("approve", plan, typed="y\n")
    assert approved.code == 0
    assert "100 → 0   +0 −100   held: the source is empty" in approved.out
    assert "Let it go?" in approved.err, "asked where the person is, not in the output"
    assert program.run("sync").code == 0
    assert told(program.calls()) == dict.fromkeys(people(range(100)), False)


def test_too_many_exits_are_held_and_approved_with_a_reason(program: Program) -> None:
    program.members("vip", range(30, 100))
    plan = held_plan(program)
    (status,) = program.run("status", "--json").json()["audiences"]
    assert status["state"] == "held"
    assert {k: status["held"][k] for k in ("id", "entered", "exited")} == {
        "id": plan,
        "entered": 0,
        "exited": 30,
    }
    assert "30 % would leave (limit 20 %)" in status["held"]["limit"]
    assert len(program.calls()) == 100

    done = program.run("approve", plan, "--yes", "--reason", "spring cleaning")
    assert done.code == 0
    assert program.run("sync").code == 0
    assert told(program.calls()[100:]) == dict.fromkeys(people(range(30)), False)
    ((kept,),) = program.stored("SELECT counts FROM run WHERE kind = 'approve'")
    assert "spring cleaning" in kept


def test_the_plan_that_diff_shows_leads_to_what_is_held(program: Program) -> None:
    """The content is the same, but not the time in front."""
    program.members("vip", range(30, 100))
    plan = held_plan(program)
    digest = plan.partition("-")[2]
    refused = program.run("approve", f"20990101T0000Z-{digest}", "--yes")
    assert refused.code == 2
    assert f"the same is held as {plan}" in refused.err
    other = program.run("approve", f"20990101T0000Z-{'0' * len(digest)}", "--yes")
    assert other.code == 2
    assert "audience-sync status shows what is" in other.err
    assert program.stored(SNAPSHOTS) == [("vip", 1, "current"), ("vip", 2, "held")]


def test_a_held_capture_can_be_discarded(program: Program) -> None:
    program.members("vip", range(30, 100))
    plan = held_plan(program)
    assert program.run("approve", plan, "--discard", "--yes").out.endswith("discarded\n")
    assert program.stored(SNAPSHOTS) == [("vip", 1, "current")]
    assert len(program.calls()) == 100


def test_a_large_first_delivery_asks_first(program: Program) -> None:
    program.configure({"vip": ["calls"], "large": ["calls"]}, more=LIMITS)
    program.members("large", range(101))
    forecast = program.run("diff", "large", "--now", NOW)
    assert "HELD: first delivery to 101 members (limit 100)" in forecast.out
    done = program.run("sync", "large", "--json", "--now", NOW)
    assert done.code == 3
    report = done.json()
    assert [c["outcome"] for c in report["captures"]] == ["committed"]
    (held,) = report["deliveries"]
    assert (held["outcome"], held["remaining"]) == ("held", 101)
    assert held["plan"] in forecast.out
    assert told(program.calls(), "large") == {}

    assert program.run("approve", held["plan"], "--yes").code == 0
    program.members("large", range(1, 102))
    done = program.run("sync", "large", "--json")
    assert [(d["lane"], d["accepted"]) for d in done.json()["deliveries"]] == [
        ("initial", 101),
        ("incremental", 2),
    ], "what changed before its end is told by the same run"
    everybody = dict.fromkeys(people(range(1, 102)), True)
    assert told(program.calls(), "large") == everybody | dict.fromkeys(people(range(1)), False)
