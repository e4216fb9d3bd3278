from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from audience_sync.domain.message_id import canonical, keyed, message_id

BODY = {"type": "identify", "userId": "u1", "traits": {"vip": True, "email": "é@example.com"}}
PARTS = {"installation": "i1", "destination": "d1", "audience": "vip", "span_number": 7}
PROGRAM = f"""
from audience_sync.domain.message_id import canonical, message_id
print(message_id(canonical({BODY!r}), **{PARTS!r}))
"""


def identity(body: dict[str, Any] | None = None, **changed: Any) -> str:
    return message_id(canonical(body or BODY), **{**PARTS, **changed})


def test_the_id_is_the_same_on_every_machine_and_in_every_version() -> None:
    assert identity() == (
        "audience-sync-c1fe3f3dece1f3354bb7a471b47ca859157b14b5e2bb15bb3ffb5eae3873d76d"
    )


@pytest.mark.parametrize("seed", ["0", "1"])
def test_the_id_is_the_same_in_every_process(seed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.strip() == identity()


@pytest.mark.parametrize(
    "changed",
    [
        {"installation": "i2"},
        {"destination": "d2"},
        {"audience": "vip2"},
        {"span_number": 8},
        {"installation": "i1d", "destination": "1"},
        {"audience": "vip7", "span_number": 0},
        {"body": {**BODY, "userId": "u2"}},
        {"body": {**BODY, "traits": {"vip": False, "email": "é@example.com"}}},
        {"body": {**BODY, "traits": {"vip": 1, "email": "é@example.com"}}},
        {"body": {**BODY, "traits": {"vip": "true", "email": "é@example.com"}}},
    ],
)
def test_another_transition_has_another_id(changed: dict[str, Any]) -> None:
    assert identity(**changed) != identity()


def test_the_order_of_keys_does_not_matter() -> None:
    body = {key: BODY[key] for key in reversed(BODY)}
    assert identity(body) == identity()


def test_canonical_is_compact_sorted_utf8() -> None:
    assert canonical({"b": [1, 1.5, None], "a": "é"}) == '{"a":"é","b":[1,1.5,null]}'.encode()


def test_canonical_refuses_what_json_cannot_say() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical({"value": float("nan")})


def test_a_keyed_reference_depends_on_the_secret_and_every_part() -> None:
    references = {
        keyed("s1", "u1"),
        keyed("s2", "u1"),
        keyed("s1", "u2"),
        keyed("s1", "u1", ""),
        keyed("s1", "u", "1"),
    }
    assert len(references) == 5
    assert keyed("s1", "u1") == keyed("s1", "u1")
    assert all(len(reference) == 20 and "u1" not in reference for reference in references)
