"""What goes wrong on request, as a client sees it, and whether it had its effect."""

from __future__ import annotations

import collections
import threading
import time
from typing import Any

import httpx
import pytest

from audience_sync.sandbox.faults import FAULTS
from audience_sync.sandbox.options import Options, failure, per_second
from audience_sync.sandbox.server import server
from tests.acceptance.program import wait_until
from tests.fakes.sandbox import NOON, Sandbox, sandbox

NEW = {"email": "ana@example.com", "person": {"nickname": "Ana"}}
APPLIED = {name for name, fault in FAULTS.items() if fault.applies}


def created(made: Sandbox) -> httpx.Response:
    return made.crisp("POST", "people/profile", NEW)


def people_after(made: Sandbox) -> int:
    return len(made.people())


@pytest.mark.parametrize("name", ["reset", "reset-after", "timeout", "timeout-after"])
def test_no_answer_comes(name: str) -> None:
    with sandbox(failures=(failure(f"{name}:1"),), hang=0.2) as made:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            created(made)
        assert people_after(made) == (name in APPLIED)
        assert made.calls()[0]["outcome"] == name


def test_a_timeout_lasts_longer_than_who_waits() -> None:
    with sandbox(failures=(failure("timeout:1"),), hang=600.0) as made:
        with pytest.raises(httpx.ReadTimeout):
            made.crisp("POST", "people/profile", NEW, timeout=0.2)
        assert people_after(made) == 0


def test_the_answer_is_cut() -> None:
    with sandbox(failures=(failure("truncated:1"),)) as made:
        with pytest.raises(httpx.RemoteProtocolError):
            created(made)
        assert people_after(made) == 1


def test_the_answer_is_slow() -> None:
    with sandbox(failures=(failure("slow:1"),), drip=0.01) as made:
        url = f"{made.base}/v1/website/{made.options.websites[0]}/people/profile"
        asked: dict[str, Any] = {"auth": ("sandbox", "sandbox-key"), "json": NEW}
        begun = time.monotonic()
        with made.client().stream("POST", url, headers={"X-Crisp-Tier": "plugin"}, **asked) as a:
            pieces = list(a.iter_raw())
        body = b"".join(pieces)
        assert time.monotonic() - begun > 0.9 * 0.01 * len(body)
        assert max(map(len, pieces)) < len(body) // 2  # what came while nobody read is one piece
        assert b'"people_id"' in body
        assert people_after(made) == 1


def test_a_page_comes_instead() -> None:
    with sandbox(failures=(failure("html:1"),)) as made:
        answer = created(made)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")
        assert people_after(made) == 0


@pytest.mark.parametrize("status", [402, 420, 423, 429, 500, 503])
def test_a_status_comes_instead(status: int) -> None:
    with sandbox(failures=(failure(f"{status}:1"),)) as made:
        answer = created(made)
        assert (answer.status_code, answer.json()["error"]) == (status, True)
        answer = made.segment("identify", {"userId": "u1"})
        assert (answer.status_code, answer.json()["success"]) == (status, False)
        assert ("retry-after" in answer.headers) is (status == 429)
        assert people_after(made) == 0
        assert {call["reason"] for call in made.calls()} == {f"--fail {status}"}


def test_half_of_a_batch_is_done_and_nobody_says_so() -> None:
    with sandbox(failures=(failure("partial:1"),)) as made:
        who = [made.person(f"p{n}@example.com") for n in range(4)]
        batch = {"people": {"profiles": who}, "data": {"vip": True}}
        assert made.crisp("PATCH", "batch/data", batch).status_code == 200
        assert [made.data(people_id) for people_id in who] == [{"vip": True}, {}] * 2


def test_shares_are_kept_and_repeat_with_the_seed() -> None:
    def outcomes(seed: int) -> list[str]:
        failures = (failure("429:0.2"), failure("500:0.1"))
        with sandbox(failures=failures, seed=seed) as made:
            for _ in range(300):
                made.crisp("HEAD", "people/profile/x")
            return [call["outcome"] for call in made.calls()]

    first = outcomes(1)
    assert first == outcomes(1) != outcomes(2)
    counted = collections.Counter(first)
    assert 30 < counted["429"] < 90
    assert 10 < counted["500"] < 50


def test_who_waits_holds_up_no_stop() -> None:
    made = server(Options(failures=(failure("timeout:1"),), hang=600.0), ("127.0.0.1", 0), _noon)
    made.start()
    errors: list[Exception] = []
    waiting = threading.Thread(target=_ask, args=(made.port, errors))
    waiting.start()
    wait_until(lambda: _connected(made.port))
    made.stop()
    waiting.join(30)
    assert not made.is_alive
    assert errors


def _noon() -> Any:
    return NOON


def _ask(port: int, errors: list[Exception]) -> None:
    try:
        httpx.post(f"http://127.0.0.1:{port}/v1/batch", auth=("sandbox-write-key", ""), timeout=60)
    except httpx.HTTPError as error:
        errors.append(error)


def _connected(port: int) -> bool:
    answer = httpx.get(f"http://127.0.0.1:{port}/sandbox/counts.json")
    return bool(answer.json()["requests"])


@pytest.mark.parametrize(
    "text", ["", "429", "429:", "429:2", "429:-1", "429:nan", "200:1", "x:1", "reset:.", "600:1"]
)
def test_what_is_no_failure(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        failure(text)


def test_a_rate_is_written_plainly() -> None:
    assert (per_second("10/s"), per_second("0.5/s"), per_second("3")) == (10, 0.5, 3)
    for text in ("", "0/s", "-1/s", "x", "10/m", "nan"):
        with pytest.raises(ValueError, match="per second"):
            per_second(text)
