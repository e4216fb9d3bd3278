"""Orders of people, as typed: each with the scenario that made it necessary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.program import Program, people, told

DAY = "2026-03-01T{:02}:00Z"
ORDERS = "SELECT kind, actor, json_extract(counts, '$.reason') FROM run WHERE kind = '{}'"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    made = Program(folder=tmp_path)
    made.configure({"vip": ["calls"]})
    made.members("vip", range(30))
    assert sync(made, 0).code == 0
    return made


def sync(program: Program, hour: int, *more: str) -> Any:
    return program.run("sync", "--all", "--now", DAY.format(hour), *more)


def rename(program: Program, name: str, key: str | None = None) -> None:
    """The audience ``vip`` under another name; its file stays."""
    text = (program.folder / "config.toml").read_text()
    line = f'name = "{name}"' + (f'\nkey = "{key}"' if key else "")
    (program.folder / "config.toml").write_text(text.replace('name = "vip"', line))


def order(program: Program, kind: str) -> tuple[Any, ...]:
    (found,) = program.stored(ORDERS.format(kind))
    return found


@pytest.mark.parametrize(
    "words", [["pause", "vip"], ["resync", "vip"], ["retire", "vip"], ["pause", "--all"]]
)
def test_an_order_asks_first(program: Program, words: list[str]) -> None:
    refused = program.run(*words)
    assert refused.code == 2
    assert "--yes" in refused.err
    declined = program.on_terminal(*words, typed="n\n")
    assert declined.code == 1
    assert "nothing was changed" in declined.err
    assert program.stored(f"SELECT * FROM run WHERE kind = '{words[0]}'") == []
    assert program.on_terminal(*words, "--reason", "because", typed="y\n").code == 0
    assert program.stored(ORDERS.format(words[0]))[0][2] == "because"


def test_an_unknown_name_is_2_with_those_there_are(program: Program) -> None:
    for command in ("pause", "resync", "retire"):
        done = program.run(command, "vpi", "--yes")
        assert (done.code, "there are: vip" in done.err) == (2, True)
    done = program.run("pause", "--destination", "crsp", "--yes")
    assert (done.code, "there are: calls" in done.err) == (2, True)
    assert program.run("pause", "--yes").code == 2


def test_a_paused_audience_is_left_alone(program: Program) -> None:
    """Orders are being migrated, and the audience would be wrong for a day."""
    assert program.run("pause", "vip", "--yes", "--reason", "migration").code == 0
    kind, actor, reason = order(program, "pause")
    assert (kind, "@" in actor, reason) == ("pause", True, "migration")
    program.members("vip", range(5, 30))
    assert sync(program, 2).code == 0
    assert len(program.calls()) == 30
    assert "vip: paused" in program.run("diff", "--now", DAY.format(2)).err
    shown = program.run("status", "--exit-code")
    assert shown.code == 4
    assert "! vip  paused  neither captured nor told  resume vip" in shown.lines()
    assert "PAUSED" in sync(program, 2, "vip").out
    assert program.run("resume", "vip", "--yes").code == 0
    assert sync(program, 3).code == 0
    assert {u for u, state in told(program.calls()).items() if not state} == people(range(5))


def test_a_paused_destination_is_told_the_net_change_later(program: Program) -> None:
    assert program.run("pause", "--destination", "calls", "--yes").code == 0
    program.members("vip", range(31))
    done = sync(program, 2)
    assert (done.code, "resume --destination calls" in done.out) == (0, True)
    program.members("vip", range(1, 30))
    sync(program, 3)
    assert len(program.calls()) == 30
    assert "resume --destination calls" in program.run("status").out
    assert program.run("resume", "--destination", "calls", "--yes").code == 0
    assert sync(program, 4).code == 0
    assert told(program.calls()[30:]) == {"person-0000": False}


def test_a_resync_tells_everybody_and_those_who_left(program: Program) -> None:
    """Somebody has edited the profiles by hand at the destination."""
    assert program.run("resync", "vip", "--yes").code == 0
    assert "resync waits" in program.run("status").out
    program.members("vip", range(2, 31))
    done = sync(program, 2)
    assert "resync" in done.out
    members, left = people(range(2, 31)), people(range(2))
    assert told(program.calls()[30:]) == {u: u not in left for u in members | left}
    assert sync(program, 3).out.startswith("0 delivered")


def forecast(program: Program, hour: int) -> dict[str, Any]:
    done = program.run("diff", "--json", "--now", DAY.format(hour))
    assert done.code == 0, done
    (place,) = done.json()["audiences"][0]["destinations"]
    found: dict[str, Any] = place
    return found


@pytest.mark.parametrize("calls", ['["identify"]', '["identify", "track"]'])
def test_a_resync_that_waits_is_foreseen_whole(program: Program, calls: str) -> None:
    """Also what it will tell of those who left, and came, before it and with it (P12)."""
    how = f'[destinations.calls]\ntype = "ndjson"\npath = "calls.ndjson"\ncalls = {calls}\n'
    program.configure({"vip": ["calls"]}, destinations=how + 'quota = "35/day"\nreserve = "90%"\n')
    program.members("vip", range(3, 32))
    assert sync(program, 1).code == 0, "more than half of it waits for tomorrow, if it is not told"
    assert program.run("resync", "vip", "--yes").code == 0
    program.members("vip", range(5, 40))
    program.configure({"vip": ["calls"]}, destinations=how)
    before = len(program.calls())
    foreseen = forecast(program, 2)
    assert (foreseen["resync"], foreseen["lane"], foreseen["at_most"]) == (True, "initial", False)
    shown = program.run("diff", "--now", DAY.format(2)).out
    assert f"calls      resync, {foreseen['calls']} calls, 1 request, about 1 s" in shown
    assert sync(program, 2).code == 0
    assert len(program.calls()) - before == foreseen["calls"]
    assert not forecast(program, 3)["resync"]
    assert forecast(program, 3)["calls"] == 0


def test_a_resync_that_was_begun_takes_what_is_left_of_it(program: Program) -> None:
    how = '[destinations.calls]\ntype = "ndjson"\npath = "calls.ndjson"\n'
    program.configure({"vip": ["calls"]}, destinations=how + 'quota = "20/day"\n')
    assert program.run("resync", "vip", "--yes").code == 0
    assert sync(program, 1).code == 0
    told_already = len(program.calls()) - 30
    assert 0 < told_already < 30
    program.configure({"vip": ["calls"]}, destinations=how)
    assert forecast(program, 2)["calls"] == 30 - told_already
    assert sync(program, 2).code == 0
    assert len(program.calls()) == 60


def test_a_retired_audience_is_taken_back_and_its_key_kept(program: Program) -> None:
    assert program.run("retire", "vip", "--yes", "--reason", "campaign over").code == 0
    assert program.run("sync").code == 0
    assert told(program.calls()[30:]) == dict.fromkeys(people(range(30)), False)
    assert program.run("sync", "--all").code == 0
    assert len(program.calls()) == 60, "nobody comes back"
    assert program.run("retire", "vip", "--yes").code == 2
    program.configure({"vip": ["calls"], "other": ["calls"]})
    program.members("other", range(3))
    rename(program, "Very Important", "vip")
    done = program.run("sync", "--all")
    assert (done.code, "retired" in done.out) == (78, True)
    assert told(program.calls()[60:], "other") == dict.fromkeys(people(range(3)), True)


def test_leave_tells_nobody(program: Program) -> None:
    assert program.run("retire", "vip", "--on-retire", "leave", "--yes").code == 0
    assert program.run("sync").code == 0
    assert len(program.calls()) == 30


@pytest.mark.parametrize("state", ["paused", "retired"])
def test_the_file_says_so_too(program: Program, state: str) -> None:
    config = program.folder / "config.toml"
    config.write_text(config.read_text() + f'state = "{state}"\n')
    done = program.run("sync", "--all")
    assert done.code == 0
    gone = program.calls()[30:]
    everybody = dict.fromkeys(people(range(30)), False)
    assert told(gone) == (everybody if state == "retired" else {})
    assert program.run("status").out.count(state) >= 1


def test_a_renamed_audience_is_asked_about(program: Program) -> None:
    rename(program, "Very Important")
    for command in (["sync"], ["diff"]):
        done = program.run(*command, "--now", DAY.format(2))
        assert (done.code, "renamed?" in done.out, 'key = "vip"' in done.out) == (3, True, True)
    assert len(program.calls()) == 30
    program.configure({"vip": ["calls"]})
    rename(program, "Very Important", "vip")
    assert sync(program, 2).code == 0
    assert len(program.calls()) == 30, "the same audience goes on"
    assert program.stored("SELECT key, name FROM audience") == [("vip", "Very Important")]


def test_rejections_are_shown_and_told_again(program: Program) -> None:
    """A member whose call is too large for Segment's limits, until the row is mended."""
    path = program.folder / "vip.csv"
    long = "x" * 40_000
    path.write_text(path.read_text() + f"person-0099,{long}\n")
    assert "1 rejected" in sync(program, 2).out
    (row,) = program.run("rejections", "--json").json()["rejections"]
    assert (row["user_id"], row["destination"], row["outcome"]) == (
        "person-0099",
        "calls",
        "rejected",
    )
    assert "limit 32,768" in row["reason"]
    path.write_text(path.read_text() + "person-0098,p98@private.example\n")
    assert "rejected" not in sync(program, 3).out
    assert "ok, 1 rejected" in program.run("status").out, "they stand whatever is told after them"
    assert program.run("rejections", "--retry", "--yes").code == 0
    assert "1 rejected" in sync(program, 4).out, "told again, with its state of then"
    # An update alone is not told; of one who stands rejected it is.
    path.write_text(path.read_text().replace(long, "p99@private.example"))
    assert sync(program, 5).code == 0
    assert told(program.calls()[30:]) == {"person-0098": True, "person-0099": True}
    assert "rejected" not in program.run("status").out
    assert "nobody stands" in program.run("rejections").out
