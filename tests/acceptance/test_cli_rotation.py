"""A write key that is rotated in the middle of a run (P4, P16, P19)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.program import LONGEST, NEW_STORE, Done, Program, people
from tests.fakes.tracking_api import Served, serve

OLD, NEW = "old-key-7Hq/2w==", "new-key-9Xz/4v=="
MEMBERS = 720
AT_ONCE = 4
PLACE = """
[destinations.seg]
type = "segment"
write_key = "${file:key}"
endpoint = "ENDPOINT"
concurrency = 4
batch = 10
"""


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """A Segment that takes one key at a time, and a program that reads its key from a file."""

    served: Served
    accepts: Path
    program: Program

    def in_mid_run(self, change: Callable[[], None]) -> Done:
        """Start a sync and ``change`` something while requests are under way."""
        with self.program.start("sync", "--json") as process:
            while not self.served.log.stat().st_size:
                assert process.poll() is None, process.communicate()
                time.sleep(0.005)
            change()
            out, err = process.communicate(timeout=LONGEST)
        return Done(code=process.returncode, out=out, err=err)

    def configured(self, key: str) -> None:
        (self.program.folder / "new").write_text(key)
        (self.program.folder / "new").replace(self.program.folder / "key")

    def accepted(self, key: str) -> None:
        new = self.accepts.with_suffix(".new")
        new.write_text(key)
        new.replace(self.accepts)


@pytest.fixture
def rotation(tmp_path: Path) -> Iterator[Rotation]:
    folder = tmp_path / "program"
    folder.mkdir()
    accepts = tmp_path / "accepted-key"
    accepts.write_text(OLD)
    with serve(log=tmp_path / "log", key_file=accepts, latency=0.15) as served:
        rotation = Rotation(served=served, accepts=accepts, program=Program(folder=folder))
        rotation.configured(OLD)
        (folder / "key").chmod(0o600)
        rotation.program.configure(
            {"vip": ["seg"]}, destinations=PLACE.replace("ENDPOINT", served.endpoint)
        )
        rotation.program.members("vip", range(MEMBERS))
        yield rotation


def test_a_run_goes_on_with_the_new_key(rotation: Rotation) -> None:
    def rotate() -> None:
        rotation.configured(NEW)
        rotation.accepted(NEW)

    done = rotation.in_mid_run(rotate)
    assert done.code == 0, done
    (delivery,) = done.json()["deliveries"]
    assert (delivery["outcome"], delivery["accepted"], delivery["rejected"]) == (
        "completed",
        MEMBERS,
        0,
    )
    calls = rotation.served.calls()
    assert sorted(call["userId"] for call in calls) == sorted(people(range(MEMBERS)))  # once each
    assert len({call["messageId"] for call in calls}) == MEMBERS
    assert rotation.served.refused() == []
    assert rotation.program.stored("SELECT paused_reason FROM destination") == [(None,)]
    assert rotation.program.stored("SELECT count(*) FROM rejection") == [(0,)]


def test_neither_key_is_shown_or_stored(rotation: Rotation) -> None:
    def rotate() -> None:
        rotation.configured(NEW)
        rotation.accepted("neither")

    done = rotation.in_mid_run(rotate)
    assert done.code == 77
    left = [content for name, content in rotation.program.files().items() if name != "key"]
    everything = (done.out + done.err).encode() + b"".join(left)
    assert OLD.encode() not in everything
    assert NEW.encode() not in everything


@pytest.mark.parametrize("becomes", ["", "[store\n", "ENDPOINT"])
def test_the_key_is_kept_when_the_configuration_cannot_be_used(
    rotation: Rotation, becomes: str
) -> None:
    """Invalid by now, or another place by the same name: the new key is not for this one."""
    config = rotation.program.folder / "config.toml"
    before = config.read_text()
    elsewhere = before.replace(rotation.served.endpoint, rotation.served.faulty("500"))

    def edit() -> None:
        rotation.configured(NEW)
        config.write_text(elsewhere if becomes == "ENDPOINT" else becomes)
        rotation.accepted(NEW)

    done = rotation.in_mid_run(edit)
    assert done.code == 77, done
    (delivery,) = done.json()["deliveries"]
    assert delivery["outcome"] == "paused"
    assert "key refused (401)" in delivery["error"]
    assert delivery["rejected"] == 0
    told = len(rotation.served.calls())
    assert 0 < told < MEMBERS
    log = done.err.removeprefix(NEW_STORE)
    warned = {json.loads(line)["event"] for line in log.splitlines()}
    kept = {"configuration invalid by now: the key is kept"}
    assert warned == (set() if becomes == "ENDPOINT" else kept)

    config.write_text(before)
    again = rotation.program.run("sync", "--json")
    assert again.code == 0, again
    calls = rotation.served.calls()
    assert {call["userId"] for call in calls} == people(range(MEMBERS))
    assert len(calls) <= MEMBERS + AT_ONCE * 10


def test_the_same_key_refused_pauses_as_before(rotation: Rotation) -> None:
    done = rotation.in_mid_run(lambda: rotation.accepted(NEW))
    assert done.code == 77
    assert done.err == NEW_STORE
    assert rotation.program.run("sync").code == 77
    rotation.configured(NEW)
    assert rotation.program.run("sync").code == 0
    assert {call["userId"] for call in rotation.served.calls()} == people(range(MEMBERS))
