"""The configuration is edited: what is taken out is told nothing, and nobody is removed by it."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.program import Program, people, told

TWO = "".join(
    f'[destinations.{n}]\ntype = "ndjson"\npath = "{n}.ndjson"\n' for n in ("east", "west")
)
ONE = TWO.partition("[destinations.west]")[0]


def test_audiences_and_destinations_come_and_go(tmp_path: Path) -> None:
    program = Program(folder=tmp_path)
    program.configure({"vip": ["east", "west"], "churn": ["west"]}, destinations=TWO)
    program.members("vip", range(30))
    program.members("churn", range(40))
    assert program.run("sync", "--now", "2026-03-01T00:00Z").code == 0
    everyone = dict.fromkeys(people(range(30)), True)
    assert told(program.calls("east.ndjson")) == told(program.calls("west.ndjson")) == everyone
    assert len(program.calls("west.ndjson")) == 70

    # Without the audience `churn`, and without the destination `west`.
    program.configure({"vip": ["east"]}, destinations=ONE)
    program.members("vip", range(1, 31))
    program.members("churn", [])
    done = program.run("sync", "--now", "2026-03-01T02:00Z", "--json")
    assert done.code == 0
    assert [d["destination"] for d in done.json()["deliveries"]] == ["east"]
    assert len(program.calls("west.ndjson")) == 70, "nothing was told there, and nothing of churn"
    assert told(program.calls("east.ndjson")[30:]) == {"person-0000": False, "person-0030": True}
    shown = program.run("status", "--exit-code")
    assert shown.code == 4
    gone = "! churn  gone  no longer configured; nothing is told about it  retire churn"
    assert gone in shown.lines()
    assert "west is no longer configured; nothing is told there" in shown.lines()
    status = program.run("status", "--json").json()
    assert (status["gone"], status["gone_destinations"]) == (["churn"], ["west"])
    assert [a["key"] for a in status["audiences"]] == ["vip"]

    # Both come back: what they missed is told, and only that.
    program.configure({"vip": ["east", "west"], "churn": ["west"]}, destinations=TWO)
    program.members("vip", range(2, 32))
    program.members("churn", range(41))
    assert program.run("sync", "--now", "2026-03-01T04:00Z").code == 0
    new = program.calls("west.ndjson")[70:]
    assert told(new) == {
        "person-0000": False,
        "person-0001": False,
        "person-0030": True,
        "person-0031": True,
    }
    assert told(new, "churn") == {"person-0040": True}
    assert len(new) == 5
