"""``status --exit-code``: 4 for everything that needs a person, with the next command beside it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.program import Program


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Program, dict[str, bytes]]:
    program = Program(folder=tmp_path_factory.mktemp("status"))
    program.configure({"vip": ["calls"], "winback": ["calls"]})
    for name in ("vip", "winback"):
        program.members(name, range(20))
    assert program.run("sync").code == 0
    return program, program.files()


@pytest.fixture
def program(seeded: tuple[Program, dict[str, bytes]]) -> Program:
    made, files = seeded
    made.put_back(files)
    return made


def nothing(program: Program) -> None:
    """All in order."""


def failed_capture(program: Program) -> None:
    (program.folder / "vip.csv").unlink()
    assert program.run("sync", "vip").code == 65


def held_capture(program: Program) -> None:
    (program.folder / "vip.csv").write_text("user_id,email\n")
    assert program.run("sync", "vip").code == 3


def held_first_delivery(program: Program) -> None:
    audiences = {"vip": ["calls"], "winback": ["calls"], "many": ["calls"]}
    program.configure(audiences, more="[guard]\nmax_initial = 10\n")
    program.members("many", range(20))
    assert program.run("sync", "many").code == 3


def paused_destination(program: Program) -> None:
    program.members("vip", range(25))
    (program.folder / "calls.ndjson").rename(program.folder / "away.ndjson")
    (program.folder / "calls.ndjson").mkdir()
    assert program.run("sync", "vip").code == 69


def paused_audience(program: Program) -> None:
    assert program.run("pause", "vip", "--yes").code == 0


def gone_audience(program: Program) -> None:
    program.configure({"winback": ["calls"]})


@pytest.mark.parametrize(
    ("happens", "first"),
    [
        (nothing, None),
        (failed_capture, ("! vip", "failed", "diff vip")),
        (held_capture, ("! vip", "held", "approve 2")),
        (held_first_delivery, ("! many", "held", "approve 2")),
        (paused_destination, ("! calls", "paused", "nothing lost, 5 members wait")),
        (paused_audience, ("! vip", "paused", "resume vip")),
        (gone_audience, ("! vip", "gone", "retire vip")),
    ],
)
def test_trouble_is_4_and_stands_first(
    program: Program, happens: Callable[[Program], None], first: tuple[str, ...] | None
) -> None:
    happens(program)
    done = program.run("status", "--exit-code")
    assert done.code == (4 if first else 0), done
    assert program.run("status", "--exit-code", "--json").code == done.code
    assert program.run("status").code == 0
    for words in first or ["AUDIENCE"]:
        assert words in done.lines()[0]
