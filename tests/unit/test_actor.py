"""Who gives an order: a name where there is one."""

from __future__ import annotations

import getpass
import os
import socket

import pytest

from audience_sync.actor import actor


def test_user_and_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ann")
    monkeypatch.setattr(socket, "gethostname", lambda: "ops")
    assert actor() == "ann@ops"


def test_a_name_that_is_no_text_can_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "\udcff")
    monkeypatch.setattr(socket, "gethostname", lambda: "ops")
    assert actor() == "\\udcff@ops"


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def nameless() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", nameless)
    monkeypatch.setattr(socket, "gethostname", lambda: "pod-7")
    assert actor() == f"{os.getuid()}@pod-7"
