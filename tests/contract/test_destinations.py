"""What every destination must do; a destination joins by naming itself at the end."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from audience_sync.destinations.calls import MAX_CALL_BYTES
from audience_sync.destinations.ndjson import NdjsonDestination, NdjsonSender
from audience_sync.destinations.segment import SegmentDestination
from audience_sync.domain.audience import AudienceKey, Kind, Row
from audience_sync.domain.change import Change
from audience_sync.domain.span import Refusal
from audience_sync.errors import BadCalls, DestinationPaused, RetryLater
from audience_sync.pipeline.ports.destination import Destination
from audience_sync.pipeline.ports.sending import MemberCalls, SpanContext, Told
from tests.fakes.nobody import as_nobody
from tests.fakes.tracking_api import Served, serve

CAPTURED_AT = datetime(2026, 10, 7, 6, 0, tzinfo=UTC)
NOW = datetime(2026, 10, 7, 6, 5, tzinfo=UTC)
CONTEXT = SpanContext(
    audience=AudienceKey("vip"),
    kind=Kind.AUDIENCE,
    span_number=3,
    timestamp=CAPTURED_AT,
    installation="installation-1",
)
TRAIT = replace(CONTEXT, audience=AudienceKey("lifetime_value"), kind=Kind.COMPUTED_TRAIT)
EMAIL: Row = {"email": "john.doe@example.com"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A destination, and what it was told: bodies with their messageId, in order."""

    destination: Destination
    told: Callable[[], list[dict[str, Any]]]
    tracking: Destination
    """The same with Track calls."""


def entered(user_id: str, row: Row | None = None) -> Change:
    return Change(user_id=user_id, before=None, after=row if row is not None else EMAIL)


def call(destination: Destination, change: Change, context: SpanContext = CONTEXT) -> MemberCalls:
    made = destination.calls([Told(change=change, context=context)])
    assert isinstance(made, MemberCalls)
    return made


def both(
    place: Place, change: Change, context: SpanContext = CONTEXT
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Identify and Track."""
    identify, track = (json.loads(body) for body in call(place.tracking, change, context).bodies)
    return identify, track


def refusal(destination: Destination, change: Change) -> str:
    made = destination.calls([Told(change=change, context=CONTEXT)])
    assert isinstance(made, Refusal)
    assert made.user_id == change.user_id
    assert change.user_id not in made.reason
    return made.reason


def message_id(made: MemberCalls) -> str:
    return str(json.loads(made.bodies[0])["messageId"])


class DestinationTests:
    def test_same_change_same_bytes(self, place: Place) -> None:
        first = call(place.destination, entered("u1"))
        assert call(place.destination, entered("u1")) == first

    @pytest.mark.parametrize(
        "other",
        [
            {"span_number": 4},
            {"installation": "installation-2"},
            {"audience": "winback"},
            {"timestamp": NOW},
        ],
        ids=lambda other: next(iter(other)),
    )
    def test_another_transition_another_id(self, place: Place, other: dict[str, Any]) -> None:
        first = call(place.destination, entered("u1"))
        then = call(place.destination, entered("u1"), replace(CONTEXT, **other))
        assert message_id(first) != message_id(then)

    def test_every_body_has_its_own_id(self, place: Place) -> None:
        changes = [
            entered("u1"),
            entered("u2"),
            entered("u1", {}),
            entered("u1", {"email": "jane@example.com"}),
            entered("u1").inverse(),
        ]
        ids = {message_id(call(place.destination, change)) for change in changes}
        assert len(ids) == len(changes)
        assert all(len(one) <= 100 for one in ids)

    def test_an_audience_is_a_real_boolean_beside_the_columns(self, place: Place) -> None:
        body = json.loads(call(place.destination, entered("u1", {**EMAIL, "age": None})).bodies[0])
        assert body["type"] == "identify"
        assert body["userId"] == "u1"
        assert body["traits"] == {"email": "john.doe@example.com", "vip": True}
        assert body["timestamp"] == "2026-10-07T06:00:00.000Z"
        assert body["context"]["personas"]["computation_key"] == "vip"
        assert "sentAt" not in body
        left = json.loads(call(place.destination, entered("u1").inverse()).bodies[0])
        assert left["traits"] == {"email": "john.doe@example.com", "vip": False}

    def test_a_computed_trait_is_its_value_and_null_afterwards(self, place: Place) -> None:
        change = entered("u1", {"value": 12.5, "email": "a@example.com"})
        body = json.loads(call(place.destination, change, TRAIT).bodies[0])
        assert body["traits"] == {"email": "a@example.com", "lifetime_value": 12.5}
        assert body["context"]["personas"]["computation_class"] == "trait"
        left = json.loads(call(place.destination, change.inverse(), TRAIT).bodies[0])
        assert left["traits"] == {"email": "a@example.com", "lifetime_value": None}

    def test_a_call_may_have_32_kilobytes_and_not_one_more(self, place: Place) -> None:
        room = MAX_CALL_BYTES - len(call(place.destination, entered("u1", {"note": ""})).bodies[0])
        largest = call(place.destination, entered("u1", {"note": "x" * room}))
        assert len(largest.bodies[0]) == 32_768
        reason = refusal(place.destination, entered("u1", {"note": "x" * (room + 1)}))
        assert reason == "an Identify call of 32,769 bytes (limit 32,768)"

    def test_size_is_counted_in_bytes(self, place: Place) -> None:
        assert "bytes" in refusal(place.destination, entered("u1", {"note": "é" * 17_000}))

    def test_fewer_than_300_traits(self, place: Place) -> None:
        columns: Row = {f"c{n}": n for n in range(298)}
        assert (
            len(json.loads(call(place.destination, entered("u1", columns)).bodies[0])["traits"])
            == 299
        )
        reason = refusal(place.destination, entered("u1", {**columns, "one_more": 1}))
        assert reason == "an Identify call with 300 traits (limit 299)"

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"], ids=repr)
    def test_what_json_cannot_hold_is_refused(self, place: Place, value: str | float) -> None:
        assert "JSON cannot hold" in refusal(place.destination, entered("u1", {"column": value}))

    def test_accepted_calls_arrive_once_in_order_as_they_are(self, place: Place) -> None:
        calls = [
            call(place.destination, entered(f"u{n:03}", {"name": "Zoë 😀"})) for n in range(70)
        ]
        sender = place.destination.sender()
        for start in range(0, len(calls), 30):
            sender.send(calls[start : start + 30])
        sender.close()
        assert place.told() == [json.loads(one.bodies[0]) for one in calls]

    def test_a_track_call_follows_each_identify_call(self, place: Place) -> None:
        change = entered("u1", {**EMAIL, "plan": "pro"})
        identify, track = both(place, change)
        assert identify == json.loads(call(place.destination, change).bodies[0])
        assert track["type"] == "track"
        assert track["userId"] == "u1"
        assert track["event"] == "Audience Entered"
        assert track["properties"] == {"audience_key": "vip", "vip": True}
        assert track["context"]["traits"] == EMAIL
        assert track["context"]["personas"] == identify["context"]["personas"]
        assert track["timestamp"] == identify["timestamp"]
        assert "traits" not in track
        _, left = both(place, change.inverse())
        assert left["event"] == "Audience Exited"
        assert left["properties"] == {"audience_key": "vip", "vip": False}

    def test_nobody_enters_or_exits_by_an_update(self, place: Place) -> None:
        change = Change(user_id="u1", before={"plan": "free"}, after={"plan": "pro"})
        assert call(place.tracking, change) == call(place.destination, change)

    def test_a_computed_trait_is_told_as_an_event_too(self, place: Place) -> None:
        _, new = both(place, entered("u1", {"value": 12.5, **EMAIL}), TRAIT)
        assert new["event"] == "Trait Computed"
        assert new["properties"] == {"trait_key": "lifetime_value", "lifetime_value": 12.5}
        assert new["context"]["traits"] == EMAIL
        change = Change(user_id="u1", before={"value": 12.5}, after={"value": 13.0})
        _, updated = both(place, change, TRAIT)
        assert updated["properties"] == {"trait_key": "lifetime_value", "lifetime_value": 13.0}
        assert "traits" not in updated["context"]
        identify, gone = both(place, entered("u1", {"value": 12.5}).inverse(), TRAIT)
        assert identify["traits"] == {"lifetime_value": None}
        assert gone["properties"] == {"trait_key": "lifetime_value", "lifetime_value": None}

    @pytest.mark.parametrize("kind", Kind)
    @pytest.mark.parametrize(
        "rows", [(None, {}), ({}, None), ({"value": 1}, {"value": 2})], ids=str
    )
    def test_how_many_calls_a_change_makes_is_known_before(
        self, place: Place, rows: tuple[Row | None, Row | None], kind: Kind
    ) -> None:
        change = Change(user_id="u1", before=rows[0], after=rows[1])
        for destination in (place.destination, place.tracking):
            made = call(destination, change, replace(CONTEXT, kind=kind))
            assert len(made.bodies) == destination.calls_per_change(change.kind, kind)
        assert place.destination.calls_per_change(change.kind, kind) == 1

    def test_each_call_has_an_id_of_its_own_and_the_same_each_time(self, place: Place) -> None:
        made = call(place.tracking, entered("u1"))
        assert call(place.tracking, entered("u1")) == made
        ids = [json.loads(body)["messageId"] for body in made.bodies]
        assert len(set(ids)) == 2
        assert all(len(one) <= 100 for one in ids)

    def test_one_call_too_large_refuses_the_member_and_says_which(self, place: Place) -> None:
        room = MAX_CALL_BYTES - len(call(place.destination, entered("u1", {"email": ""})).bodies[0])
        change = entered("u1", {"email": "x" * room})
        assert len(call(place.destination, change).bodies[0]) == MAX_CALL_BYTES
        made = place.tracking.calls([Told(change=change, context=CONTEXT)])
        assert isinstance(made, Refusal)
        assert made.reason.startswith("a Track call of 32,8")
        made = place.tracking.calls(
            [Told(change=entered("u1", {"note": "x" * 40_000}), context=CONTEXT)]
        )
        assert isinstance(made, Refusal)
        assert made.reason.startswith("an Identify call of 40,")

    def test_the_calls_of_a_member_arrive_together_and_in_order(self, place: Place) -> None:
        members = [call(place.tracking, entered(f"u{n:03}")) for n in range(40)]
        sender = place.tracking.sender()
        for start in range(0, len(members), 15):
            sender.send(members[start : start + 15])
        sender.close()
        told = place.told()
        assert told == [json.loads(body) for member in members for body in member.bodies]
        assert [one["type"] for one in told] == ["identify", "track"] * 40

    def test_nothing_to_send(self, place: Place) -> None:
        sender = place.destination.sender()
        sender.send([])
        sender.close()
        assert place.told() == []

    def test_limits_are_within_segments(self, place: Place) -> None:
        separators = place.destination.max_calls
        assert place.destination.max_calls <= 2_500
        assert place.destination.max_bytes + separators + 100 <= 500_000
        assert place.destination.max_bytes >= MAX_CALL_BYTES

    def test_reach_tells_nobody(self, place: Place) -> None:
        assert isinstance(place.destination, SegmentDestination | NdjsonDestination)
        place.destination.reach()
        assert place.told() == []


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(log=tmp_path_factory.mktemp("api") / "calls.log") as served:
        yield served


def segment(endpoint: str, **other: Any) -> SegmentDestination:
    values: dict[str, Any] = {
        "name": "segment",
        "write_key": "test",
        "endpoint": endpoint,
        "fingerprint": "fingerprint-1",
        "rate": 1000.0,
        "reserve": 0.2,
        "concurrency": 2,
        "clock": lambda: NOW,
        "deadline": 5.0,
    }
    return SegmentDestination(**{**values, **other})


def ndjson(path: Path, *, with_track: bool = False) -> NdjsonDestination:
    return NdjsonDestination(
        name="calls",
        path=path,
        fingerprint="fingerprint-1",
        rate=1000.0,
        reserve=0.2,
        with_track=with_track,
    )


def read_ndjson(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


class TestSegment(DestinationTests):
    @pytest.fixture
    def place(self, api: Served) -> Place:
        before = len(api.calls())

        def told() -> list[dict[str, Any]]:
            return [{**c["body"], "messageId": c["messageId"]} for c in api.calls()[before:]]

        return Place(
            destination=segment(api.endpoint),
            told=told,
            tracking=segment(api.endpoint, with_track=True),
        )

    def test_another_place_or_routing_another_id(self, api: Served) -> None:
        others: list[dict[str, Any]] = [
            {},
            {"fingerprint": "fingerprint-2"},
            {"integrations": {"All": False, "Crisp": True}},
        ]
        calls = [call(segment(api.endpoint, **other), entered("u1")) for other in others]
        assert len({message_id(one) for one in calls}) == 3
        assert json.loads(calls[2].bodies[0])["integrations"] == {"All": False, "Crisp": True}

    def test_one_connection_for_many_requests(self, api: Served) -> None:
        before = len(api.calls())
        destination = segment(api.endpoint)
        sender = destination.sender()
        for n in range(5):
            sender.send([call(destination, entered(f"keep{n}"))])
        sender.close()
        assert len({one["connection"] for one in api.calls()[before:]}) == 1

    def test_a_full_batch_is_accepted(self, api: Served) -> None:
        destination = segment(api.endpoint)
        calls: list[MemberCalls] = []
        size, limit = 0, destination.max_bytes
        while size + 1_200 <= limit and len(calls) < destination.max_calls:
            calls.append(call(destination, entered(f"full{len(calls)}", {"note": "x" * 600})))
            size += len(calls[-1].bodies[0])
        before = len(api.calls())
        sender = destination.sender()
        sender.send(calls)
        sender.close()
        assert len(api.calls()) - before == len(calls)
        assert api.refused() == []

    def test_a_batch_that_segment_would_drop_is_never_sent(self, api: Served) -> None:
        destination = segment(api.endpoint)
        one = call(destination, entered("u1"))
        before = len(api.calls())
        sender = destination.sender()
        with pytest.raises(BadCalls, match="2501 calls"):
            sender.send([replace(one, bodies=(b"{}",))] * 2_501)
        with pytest.raises(BadCalls, match="bytes"):
            sender.send([replace(one, bodies=(b"{" + b" " * 500_000 + b"}",))])
        sender.close()
        assert len(api.calls()) == before

    def test_the_key_is_in_no_text(self, api: Served) -> None:
        assert "k3y-of-mine" not in repr(segment(api.endpoint, write_key="k3y-of-mine"))


HASH_SCRIPT = """
from tests.contract.test_destinations import *
print(call(ndjson(Path("x")), entered("u1", {"a": 1, "b": "x", "c": True})).bodies[0].decode())
"""


def test_bytes_do_not_depend_on_the_hash_seed() -> None:
    def body(seed: str) -> str:
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        result = subprocess.run(
            [sys.executable, "-c", HASH_SCRIPT],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return result.stdout

    here = call(ndjson(Path("x")), entered("u1", {"a": 1, "b": "x", "c": True})).bodies[0].decode()
    assert [body("1"), body("2")] == [here + "\n"] * 2


class TestNdjson(DestinationTests):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "calls.ndjson"

    @pytest.fixture
    def place(self, path: Path) -> Place:
        return Place(
            destination=ndjson(path),
            told=lambda: read_ndjson(path),
            tracking=ndjson(path, with_track=True),
        )

    @pytest.fixture
    def calls(self, path: Path) -> list[MemberCalls]:
        return [call(ndjson(path), entered(f"u{n}")) for n in range(3)]

    def test_lines_are_the_elements_of_segments_batch(self, path: Path) -> None:
        change = entered("u1", {"name": "Zoë"})
        ndjson(path).sender().send([call(ndjson(path), change)])
        wire = call(segment("http://127.0.0.1:1/v1"), change).bodies[0]
        assert path.read_bytes() == wire + b"\n"

    def test_what_a_kill_tore_is_cut_at_any_byte(
        self, path: Path, calls: list[MemberCalls]
    ) -> None:
        whole = calls[0].bodies[0] + b"\n"
        end = len(calls[1].bodies[0])
        for length in [*range(40), *range(40, end, 37), end - 1, end]:
            path.write_bytes(whole + calls[1].bodies[0][:length])
            ndjson(path).sender().send(calls[1:])
            assert (
                path.read_bytes() == whole + calls[1].bodies[0] + b"\n" + calls[2].bodies[0] + b"\n"
            )

    def test_what_is_torn_between_two_calls_of_a_member_comes_again_whole(self, path: Path) -> None:
        """Identify may stand there twice then, with one id; Track never without it."""
        first, second = (call(ndjson(path, with_track=True), entered(f"u{n}")) for n in range(2))
        lines = [body + b"\n" for member in (first, second) for body in member.bodies]
        written, identify = b"".join(lines[:2]), len(lines[2])
        for torn in (1, 30, identify - 1, identify, identify + 1, identify + len(lines[3]) - 1):
            path.write_bytes(written + b"".join(lines[2:])[:torn])
            ndjson(path, with_track=True).sender().send([second])
            kept = lines[2] if torn >= identify else b""
            assert path.read_bytes() == written + kept + lines[2] + lines[3]

    @pytest.mark.parametrize("zeros", [1, 70_000])
    def test_what_a_power_cut_left_is_cut(
        self, path: Path, calls: list[MemberCalls], zeros: int
    ) -> None:
        path.write_bytes(calls[0].bodies[0] + b"\n" + calls[1].bodies[0][:9] + b"\0" * zeros)
        ndjson(path).sender().send(calls[1:])
        assert [body["userId"] for body in read_ndjson(path)] == ["u0", "u1", "u2"]

    def test_a_last_line_of_somebody_else_is_left_alone(
        self, path: Path, calls: list[MemberCalls]
    ) -> None:
        content = calls[0].bodies[0] + b"\ndear diary"
        path.write_bytes(content)
        with pytest.raises(DestinationPaused, match="is not a call"):
            ndjson(path).sender().send(calls)
        assert path.read_bytes() == content

    def test_a_full_disk_leaves_no_half_line(self, path: Path, calls: list[MemberCalls]) -> None:
        sender = ndjson(path).sender()
        sender.send(calls[:1])
        before = path.read_bytes()
        with largest_file(len(before) + len(calls[1].bodies[0]) + 20):
            with pytest.raises(RetryLater, match="could not be written"):
                sender.send(calls[1:])
            assert path.read_bytes() == before
        sender.send(calls[1:])
        assert [body["userId"] for body in read_ndjson(path)] == ["u0", "u1", "u2"]

    def test_what_is_not_on_the_disk_is_not_accepted(
        self, path: Path, calls: list[MemberCalls], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sender = ndjson(path).sender()
        sender.send(calls[:1])
        before = path.read_bytes()

        def broken(_: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "fsync", broken)
        with pytest.raises(RetryLater, match="Input/output error"):
            sender.send(calls[1:])
        assert path.read_bytes() == before

    def test_both_lanes_may_append(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("audience_sync.destinations.ndjson.LOCK_PATIENCE", 60.0)

        def deliver(lane: str) -> None:
            sender = ndjson(path).sender()
            for n in range(40):
                sender.send([call(ndjson(path), entered(f"{lane}{n}-{m}")) for m in range(5)])

        lanes = [threading.Thread(target=deliver, args=(lane,)) for lane in "abc"]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
        told = [body["userId"] for body in read_ndjson(path)]
        for name in "abc":
            expected = [f"{name}{n}-{m}" for n in range(40) for m in range(5)]
            assert [user for user in told if user.startswith(name)] == expected
        assert len(told) == 600

    def test_a_lock_that_stays_is_waited_for_in_vain(
        self, path: Path, calls: list[MemberCalls], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import fcntl

        monkeypatch.setattr("audience_sync.destinations.ndjson.LOCK_PATIENCE", 0.05)
        with path.open("wb") as holder:
            fcntl.flock(holder, fcntl.LOCK_EX)
            with pytest.raises(RetryLater, match="stays locked"):
                ndjson(path).sender().send(calls)
        ndjson(path).sender().send(calls)

    def test_a_place_that_cannot_be_used(self, tmp_path: Path, calls: list[MemberCalls]) -> None:
        (tmp_path / "file").touch()
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "loop").symlink_to("loop")
        for path, text in [
            (tmp_path / "loop", "could not be written"),
            (tmp_path / ("x" * 300), "could not be written"),
            (tmp_path, "is not a regular file"),
            (tmp_path / "pipe", "is not a regular file"),
            (tmp_path / "missing" / "calls.ndjson", "does not exist"),
            (tmp_path / "file" / "calls.ndjson", "does not exist"),
        ]:
            with pytest.raises(DestinationPaused, match=text) as sending:
                ndjson(path).sender().send(calls)
            with pytest.raises(DestinationPaused, match=text) as reaching:
                ndjson(path).reach()
            assert sending.value.hint == reaching.value.hint is not None
        assert not (tmp_path / "missing").exists()

    @pytest.mark.parametrize("content", ["user_id,n\na,1\n", "\n", "{}\n", '{"messageId"}\n', "x"])
    def test_a_file_of_something_else_is_left_alone(
        self, path: Path, calls: list[MemberCalls], content: str
    ) -> None:
        path.write_text(content)
        with pytest.raises(DestinationPaused, match="something else than calls") as sending:
            ndjson(path).sender().send(calls)
        with pytest.raises(DestinationPaused, match="something else than calls"):
            ndjson(path).reach()
        assert sending.value.hint == "choose another path, or move the file away"
        assert path.read_text() == content

    def test_a_place_without_permission(self, path: Path, calls: list[MemberCalls]) -> None:
        path.touch(mode=0o600)
        path.parent.chmod(0o500)
        path.chmod(0o400)
        sender: NdjsonSender = ndjson(path).sender()
        with as_nobody(), pytest.raises(DestinationPaused, match="no permission"):
            sender.send(calls)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system refuses writes beyond ``size``, as on a full disk: the part before is written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
