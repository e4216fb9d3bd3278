"""``send identify`` and ``send track``: one call by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.program import CALLS, Program, segment
from tests.fakes.tracking_api import Served, serve

JOHN = (
    *("--user-id", "userId123"),
    *("--trait", "name=John Doe", "--trait", "email=john.doe@example.com"),
    *("--trait", "phone=555-555-5555", "--trait", "avatar=https://example.com/john.png"),
)
PURCHASE = (
    *("--user-id", "userId123", "--event", "Completed Purchase"),
    *("--property", "revenue=39.95", "--property", "shippingMethod=2-day"),
)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    made = Program(folder=tmp_path, variables={"WRITE_KEY": "test"})
    made.configure()
    return made


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(log=tmp_path / "accepted.log") as served:
        yield served


def test_the_examples_of_the_segment_page(program: Program) -> None:
    identified = program.run("send", "identify", *JOHN)
    assert (identified.code, identified.out) == (0, "calls  identify accepted\n")
    tracked = program.run("send", "track", *PURCHASE, "--json", "--reason", "a test")
    assert tracked.json() == {"calls": [{"destination": "calls", "outcome": "accepted"}]}
    identify, track = program.calls()
    assert (identify["type"], identify["userId"]) == ("identify", "userId123")
    assert identify["traits"] == {
        "name": "John Doe",
        "email": "john.doe@example.com",
        "phone": "555-555-5555",
        "avatar": "https://example.com/john.png",
    }
    assert (track["type"], track["userId"]) == ("track", "userId123")
    assert track["event"] == "Completed Purchase"
    assert track["properties"] == {"revenue": 39.95, "shippingMethod": "2-day"}


def test_the_history_keeps_who_and_why_but_not_whom(program: Program) -> None:
    program.run("send", "identify", *JOHN, "--reason", "asked on the phone")
    rows = program.stored("SELECT kind, outcome, actor, counts FROM run")
    ((kind, outcome, actor, counts),) = rows
    assert (kind, outcome) == ("send identify", "ordered")
    assert "@" in actor
    assert "asked on the phone" in counts
    assert b"userId123" not in (program.folder / "state.db").read_bytes()


def test_the_same_call_twice_is_two_calls(program: Program) -> None:
    for _ in range(2):
        program.run("send", "track", *PURCHASE)
    assert len({call["messageId"] for call in program.calls()}) == 2


def test_values_are_what_they_look_like_unless_one_says(program: Program) -> None:
    pairs = [
        "a=1",
        "b=true",
        "c=null",
        "d=01",
        "n=1.50",
        'f:="1"',
        "g:=2",
        "phone=5551234",
        "h=a=b",
        "order=9007199254740993",
        "big:=9007199254740993",
        "e=1e5",
        "k=-0.5",
        "l=+5",
        "m=",
    ]
    arguments = [word for pair in pairs for word in ("--trait", pair)]
    assert program.run("send", "identify", "--user-id", "u1", *arguments).code == 0
    assert program.calls()[0]["traits"] == {
        **{"a": 1, "b": True, "c": None, "d": "01", "n": 1.5, "f": "1", "g": 2},
        **{"phone": "5551234", "h": "a=b", "order": "9007199254740993"},
        **{"big": 2**53 + 1, "e": "1e5", "k": -0.5, "l": "+5", "m": ""},
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["identify", "--user-id", " "], "empty"),
        (["identify", "--user-id", "a\nb"], "control characters"),
        (["identify", "--user-id", "Null"], "a word for nothing"),
        (["track", "--event", "e", "--user-id", "undefined"], "a word for nothing"),
        (["identify", "--user-id", "u1", "--trait", "user_id=u2"], "no trait of its own"),
        (["identify", "--user-id", "u" * 256], "255"),
        (["identify", "--user-id", "u1", "--trait", "plan"], "KEY=VALUE"),
        (["identify", "--user-id", "u1", "--trait", "=x"], "KEY=VALUE"),
        (["identify", "--user-id", "u1", "--trait", "a:=[1]"], "a: a value is text"),
        (["identify", "--user-id", "u1", "--trait", "a:=no"], "after a:= stands JSON"),
        (["identify", "--user-id", "u1", "--trait", "a=1", "--trait", "a=2"], "a is given twice"),
        (["track", "--user-id", "u1", "--event", " "], "no name"),
        (["identify", "--user-id", "u1", "--destination", "crips"], "no destination crips"),
    ],
)
def test_mistakes_are_2_and_nothing_is_sent(
    program: Program, arguments: list[str], said: str
) -> None:
    done = program.run("send", *arguments)
    assert (done.code, program.calls()) == (2, [])
    assert said in done.err


def test_one_of_several_destinations_must_be_named(program: Program, served: Served) -> None:
    places = CALLS + segment("cdp", served.endpoint)
    program.configure({"vip": ["calls", "cdp"]}, destinations=places)
    asked = program.run("send", "track", *PURCHASE)
    assert asked.code == 2
    assert "--destination calls or cdp" in asked.err
    assert program.run("send", "track", *PURCHASE, "--destination", "cdp").code == 0
    assert program.calls() == []
    ((call),) = served.calls()
    assert call["body"]["event"] == "Completed Purchase"


def test_a_destination_that_refuses_or_is_paused(program: Program, served: Served) -> None:
    poison = program.folder / "poison"
    poison.write_text("userId123\n")
    with serve(log=program.folder / "log", poison_file=poison) as strict:
        program.configure({"vip": ["cdp"]}, destinations=segment("cdp", strict.endpoint))
        refused = program.run("send", "identify", *JOHN, "--json")
    assert refused.code == 1
    assert refused.json()["calls"][0]["outcome"] == "refused"
    program.configure({"vip": ["cdp"]}, destinations=segment("cdp", served.faulty("401")))
    failed = program.run("send", "identify", *JOHN)
    assert (failed.code, failed.out) == (77, "cdp  identify failed\n")
    assert failed.err.count("key refused") == 1
    assert program.run("pause", "--destination", "cdp", "--yes").code == 0
    paused = program.run("send", "identify", *JOHN)
    assert paused.code == 2
    assert "audience-sync resume --destination cdp" in paused.err
    for done in (refused, paused):
        assert "john.doe" not in done.err
        assert "userId123" not in done.err


def test_who_asked_to_be_forgotten_is_told_nothing(program: Program) -> None:
    program.members("vip", range(3))
    assert program.run("sync").code == 0
    assert program.run("forget", "person-0001", "--yes").code == 0
    done = program.run("send", "identify", "--user-id", "person-0001", "--trait", "a=1")
    assert done.code == 2
    assert "asked to be forgotten" in done.err
    assert len(program.calls()) == 3


def test_a_trait_that_an_audience_tells_is_warned_of(program: Program) -> None:
    done = program.run("send", "identify", "--user-id", "u1", "--trait", "vip=true")
    assert done.code == 0
    assert "vip is told by the audience" in done.err
