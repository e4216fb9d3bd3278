"""The small parts of the daemon: patience, pulse, watched files, words for systemd."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from audience_sync.errors import LeaseTaken, StoreFailed
from audience_sync.scheduler import notify, succession
from audience_sync.scheduler.notify import Notify
from audience_sync.scheduler.patience import Patience
from audience_sync.scheduler.pulse import Pulse
from audience_sync.scheduler.report import OnceEach
from audience_sync.scheduler.troubles import Troubles
from audience_sync.scheduler.watched import Watched
from audience_sync.standing.counters import Counted, Counters


class Elapsed:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def elapsed() -> Elapsed:
    return Elapsed()


def test_patience_doubles_up_to_a_limit_and_begins_anew(elapsed: Elapsed) -> None:
    patience = Patience(elapsed, first=30, longest=300)
    assert patience.left("crisp") == 0
    assert [patience.failed("crisp") for _ in range(6)] == [30, 60, 120, 240, 300, 300]
    assert (patience.left("crisp"), patience.left("segment")) == (300, 0)
    elapsed.seconds += 299
    assert patience.left("crisp") == 1
    elapsed.seconds += 1
    assert patience.left("crisp") == 0
    patience.succeeded("crisp")
    assert patience.failed("crisp") == 30


def test_patience_has_no_end_however_often_something_fails(elapsed: Elapsed) -> None:
    patience = Patience(elapsed, first=30, longest=300)
    assert {patience.failed("crisp") for _ in range(5000)} == {30, 60, 120, 240, 300}


def test_a_rest_is_no_failure(elapsed: Elapsed) -> None:
    patience = Patience(elapsed, first=30, longest=300)
    patience.rest("crisp", 5)
    assert patience.left("crisp") == 5
    assert patience.failed("crisp") == 30


def test_who_is_silent_for_longer_than_he_said_is_named(elapsed: Elapsed) -> None:
    pulse = Pulse(elapsed)
    pulse.beat("look", 10)
    pulse.beat("deliver:crisp:initial", 100)
    elapsed.seconds += 10
    assert pulse.silent() == []
    elapsed.seconds += 1
    assert pulse.silent() == ["look"]
    pulse.beat("look", 10)
    assert pulse.silent() == []
    elapsed.seconds += 100
    pulse.end("look")
    assert pulse.silent() == ["deliver:crisp:initial"]


def test_nobody_speaks_for_another_of_his_name(elapsed: Elapsed) -> None:
    pulse = Pulse(elapsed)
    pulse.beat("deliver:crisp:initial", 10, "before a reload")
    elapsed.seconds += 11
    pulse.beat("deliver:crisp:initial", 10, "after it")
    assert pulse.silent() == ["deliver:crisp:initial"]
    pulse.end("deliver:crisp:initial", "before a reload")
    assert pulse.silent() == []


def test_only_what_is_new_is_said() -> None:
    news = OnceEach()
    assert news.is_news("vip", "paused")
    assert not news.is_news("vip", "paused")
    assert news.is_news("vip", "retired")
    assert not news.is_news("vip", None)
    assert news.is_news("vip", "retired")


def test_a_watched_file_that_is_written_replaced_or_relinked_has_changed(tmp_path: Path) -> None:
    for folder in ("v1", "v2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "key").write_text(folder)
        os.utime(tmp_path / folder / "key", (0, 0))
    (tmp_path / "data").symlink_to("v1")
    secret = tmp_path / "data" / "key"
    watched = Watched([secret])
    assert not watched.changed()
    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").rename(tmp_path / "data")  # as Kubernetes does
    assert watched.changed()
    assert not watched.changed()
    secret.write_text("longer")
    assert watched.changed()
    secret.unlink()
    assert watched.changed()
    assert not watched.changed()


@pytest.mark.parametrize("form", ["path", "abstract"])
def test_words_for_systemd(tmp_path: Path, form: str) -> None:
    name = str(tmp_path / "notify") if form == "path" else f"@audience-sync-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name[1:] if form == "abstract" else name)
        systemd.settimeout(5)
        notify = Notify({"NOTIFY_SOCKET": name}, 7)
        notify.ready("3 audiences")
        assert systemd.recv(4096) == b"READY=1\nSTATUS=3 audiences"
        notify.alive()
        assert systemd.recv(4096) == b"WATCHDOG=1"
        notify.stopping()
        assert systemd.recv(4096).startswith(b"STOPPING=1\n")


def test_a_systemd_that_does_not_listen_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "TAKEN_WITHIN", 0.01)
    longest = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        words = Notify({"NOTIFY_SOCKET": str(tmp_path / "notify")}, 7)
        for _ in range(longest + 3):
            words.alive()
        assert systemd.recv(4096) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "x" * 300])
def test_a_socket_that_cannot_be_used_stops_nothing(address: str) -> None:
    Notify({"NOTIFY_SOCKET": address}, 7).ready("3 audiences")


class Idle:
    """Stands in for a generation that has nothing to do."""

    def __init__(self, app: object, **_parts: object) -> None:
        self.app = app

    def start(self) -> None:
        pass


def test_a_secret_that_changes_during_a_reload_is_noticed_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elapsed: Elapsed
) -> None:
    secret = tmp_path / "key"
    secret.write_text("first")
    loaded = SimpleNamespace(secret_files=[secret], config=SimpleNamespace(status=None))

    def build(_loaded: object) -> object:
        secret.write_text("what came while the store was opened")
        return SimpleNamespace(audiences={}, destinations={})

    parts: Any = SimpleNamespace(
        load=lambda: loaded, build=build, clock=None, elapsed=elapsed, counters=Counters()
    )
    monkeypatch.setattr(succession, "Generation", Idle)
    made = succession.Succession(cast(Any, loaded), parts, Pulse(elapsed), cast(Any, None))
    assert not made.secrets.changed()
    made.reload()
    assert made.secrets.changed()
    assert not made.secrets.changed()


class TestTroubles:
    """With the store: said once for all loops, and that it is over; counted apart from bugs."""

    @pytest.fixture
    def counters(self) -> Counters:
        return Counters()

    @pytest.fixture
    def troubles(self, counters: Counters, elapsed: Elapsed) -> Troubles:
        made = Troubles(counters, elapsed)
        for loop in ("look", "captures"):
            made.began(loop)
        return made

    def said(self, logged: list[EventDict]) -> list[str]:
        return [line["event"] for line in logged]

    def test_one_trouble_of_many_loops_is_said_once(self, troubles: Troubles) -> None:
        with capture_logs() as logged:
            for loop in ("look", "captures", "look"):
                troubles.failed(loop, StoreFailed("refused"), 2)
            troubles.failed("look", StoreFailed("shutting down"), 4)
        assert self.said(logged) == ["the store cannot be used"] * 2
        assert [line["error"] for line in logged] == ["refused", "shutting down"]

    def test_it_is_said_again_after_minutes(self, troubles: Troubles, elapsed: Elapsed) -> None:
        with capture_logs() as logged:
            for _ in range(20):
                troubles.failed("look", StoreFailed("refused"), 30)
                elapsed.seconds += 30
        assert self.said(logged) == ["the store cannot be used"] * 2

    def test_its_end_is_said_once_when_every_loop_has_seen_it(self, troubles: Troubles) -> None:
        for loop in ("look", "captures"):
            troubles.failed(loop, StoreFailed("refused"), 2)
        with capture_logs() as logged:
            for loop in ("look", "deliver:calls:initial", "look", "captures", "captures"):
                troubles.succeeded(loop)
        assert self.said(logged) == ["the store can be used again"]
        with capture_logs() as logged:
            troubles.failed("look", StoreFailed("refused"), 2)
        assert self.said(logged) == ["the store cannot be used"]

    def test_bugs_and_the_store_are_counted(self, troubles: Troubles, counters: Counters) -> None:
        troubles.failed("look", StoreFailed("refused"), 2)
        troubles.failed("look", LeaseTaken("another process"), 2)
        assert self.errors(counters) == {"look": 0, "captures": 0}
        assert self.errors(counters, Counted.STORE_ERRORS) == {"look": 1, "captures": 0}
        with capture_logs() as logged:
            troubles.failed("look", KeyError("who"), 2)
        assert self.said(logged) == ["this is a bug"]
        assert self.errors(counters) == {"look": 1, "captures": 0}
        assert self.errors(counters, Counted.STORE_ERRORS) == {"look": 1, "captures": 0}

    def errors(self, counters: Counters, what: Counted = Counted.LOOP_ERRORS) -> dict[str, int]:
        return {count.labels[0]: count.value for count in counters.read() if count.what is what}
