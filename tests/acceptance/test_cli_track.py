"""Track calls beside Identify: what arrives at Segment, and what a bad member costs the others."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.program import CALLS, Program, people, segment
from tests.fakes.tracking_api import serve

TRACK = 'calls = ["identify", "track"]\n'
TRAIT = """
[[computed_traits]]
name = "Lifetime Value"
source = "files"
query = "SELECT *, length(email) AS value FROM 'vip.csv'"
destinations = ["calls"]
"""


def of_type(calls: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [call for call in calls if call["type"] == kind]


def test_identify_and_track_of_an_audience_and_a_computed_trait(tmp_path: Path) -> None:
    program = Program(folder=tmp_path)
    program.configure(destinations=CALLS + TRACK, more=TRAIT)
    program.members("vip", range(10))
    shown = program.run("diff", "vip", "--now", "2026-03-01T00:00Z", "--json").json()
    (forecast,) = shown["audiences"][0]["destinations"]
    assert (forecast["calls"], forecast["requests"]) == (20, 1)
    done = program.run("sync", "--now", "2026-03-01T00:00Z")
    assert "10 accepted" in done.out, "members, not calls"
    calls = program.calls()
    assert len(calls) == 40
    for identify, track in list(pairwise(calls))[::2]:
        assert (identify["type"], track["type"]) == ("identify", "track")
        assert identify["userId"] == track["userId"]
        assert identify["messageId"] != track["messageId"]
        assert track["context"]["traits"] == {"email": identify["traits"]["email"]}
    events = [call["event"] for call in of_type(calls, "track")]
    assert sorted(events) == ["Audience Entered"] * 10 + ["Trait Computed"] * 10

    program.members("vip", range(1, 11))
    shown = program.run("diff", "--now", "2026-03-01T02:00Z").out
    assert shown.count("4 calls, 1 request") == 2
    program.run("sync", "--now", "2026-03-01T02:00Z")
    new = program.calls()[40:]
    assert sorted(
        (call["event"], call["userId"], list(call["properties"].values()))
        for call in of_type(new, "track")
    ) == [
        ("Audience Entered", "person-0010", ["vip", True]),
        ("Audience Exited", "person-0000", ["vip", False]),
        ("Trait Computed", "person-0000", [None, "lifetime_value"]),
        ("Trait Computed", "person-0010", [19, "lifetime_value"]),
    ]


def test_an_update_of_an_audience_is_one_call(tmp_path: Path) -> None:
    program = Program(folder=tmp_path)
    program.configure(destinations=CALLS + TRACK)
    text = (tmp_path / "config.toml").read_text()
    (tmp_path / "config.toml").write_text(text + 'tell = ["entered", "updated"]\n')
    program.members("vip", range(3))
    program.run("sync", "--now", "2026-03-01T00:00Z")
    people_and_mail = (tmp_path / "vip.csv").read_text()
    (tmp_path / "vip.csv").write_text(people_and_mail.replace("p2@", "other@") + "person-0003,\n")
    assert "3 calls, 1 request" in program.run("diff", "--now", "2026-03-01T02:00Z").out
    program.run("sync", "--now", "2026-03-01T02:00Z")
    new = program.calls()[6:]
    assert [(call["userId"], call["type"]) for call in new] == [
        ("person-0002", "identify"),
        ("person-0003", "identify"),
        ("person-0003", "track"),
    ]


@pytest.mark.parametrize("poison", [[0], [15], [29], [0, 15, 29]], ids=str)
def test_a_poison_member_is_found_wherever_it_stands(tmp_path: Path, poison: list[int]) -> None:
    """Segment's API answers 400 to the whole batch."""
    bad = people(poison)
    (tmp_path / "poison").write_text("\n".join(bad))
    with serve(log=tmp_path / "log", poison_file=tmp_path / "poison") as api:
        program = Program(folder=tmp_path, variables={"WRITE_KEY": "test"})
        program.configure(
            {"vip": ["segment"]}, destinations=segment("segment", api.endpoint, TRACK)
        )
        program.members("vip", range(30))
        done = program.run("sync", "--now", "2026-03-01T00:00Z")
        assert done.code == 0, done
        arrived = [(call["userId"], call["body"]["type"]) for call in api.calls()]
    good = sorted(people(range(30)) - bad)
    assert sorted(arrived) == [(user, kind) for user in good for kind in ("identify", "track")]
    assert all(arrived.index((u, "identify")) < arrived.index((u, "track")) for u in good)
    assert program.stored("SELECT accepted, rejected, total FROM span") == [
        (30 - len(bad), len(bad), 30)
    ]
    reason = "segment: request refused (400), its 2 calls in one request"
    assert set(program.stored("SELECT user_id, reason FROM rejection")) == {
        (user, reason) for user in bad
    }


def test_a_member_too_large_for_one_call_is_rejected_before_anything_is_sent(
    tmp_path: Path,
) -> None:
    with serve(log=tmp_path / "log") as api:
        program = Program(folder=tmp_path, variables={"WRITE_KEY": "test"})
        program.configure(
            {"vip": ["segment"]}, destinations=segment("segment", api.endpoint, TRACK)
        )
        program.members("vip", range(3))
        with (tmp_path / "vip.csv").open("a") as file:
            file.write(f"person-0003,{'x' * 40_000}@private.example\n")
        assert program.run("sync", "--now", "2026-03-01T00:00Z").code == 0
        assert len(api.calls()) == 6
        assert api.refused() == []
    ((user, reason),) = program.stored("SELECT user_id, reason FROM rejection")
    assert user == "person-0003"
    assert reason.startswith("an Identify call of 40,")
    assert reason.endswith("bytes (limit 32,768)")


def test_when_everyone_is_poison_the_destination_pauses_and_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "poison").write_text("\n".join(people(range(120))))
    with serve(log=tmp_path / "log", poison_file=tmp_path / "poison") as api:
        program = Program(folder=tmp_path, variables={"WRITE_KEY": "test"})
        program.configure(
            {"vip": ["segment"]}, destinations=segment("segment", api.endpoint, TRACK)
        )
        program.members("vip", range(120))
        done = program.run("sync", "--now", "2026-03-01T00:00Z")
        assert done.code == 69
        assert "rejected more than 100 members of one delivery" in done.out
        assert api.calls() == []
    assert program.stored("SELECT accepted, rejected, total FROM span") == [(0, 0, 120)]
    assert program.stored("SELECT count(*) FROM rejection") == [(0,)]
