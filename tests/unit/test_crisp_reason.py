"""What Crisp says of a request may hold an e-mail: only words of its own go into a text (P17)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from audience_sync.destinations.credential import Credential
from audience_sync.destinations.crisp_api import CrispApi
from audience_sync.destinations.transport import Reply
from audience_sync.errors import AudienceSyncError
from audience_sync.pipeline.ports.sending import at_once

EMAIL = "ann@private.example"


class Answers:
    """A ``Transport`` that answers everything so."""

    def __init__(self, status: int, body: bytes) -> None:
        self.reply = Reply(status=status, headers={}, body=body, oversize=False, retry_after=None)

    def request(self, *_: Any, **__: Any) -> Reply:
        return self.reply

    def close(self) -> None:
        pass


def said(status: int, body: bytes) -> str:
    api = CrispApi(
        name="crisp",
        endpoint="https://api.example/v1",
        tier="plugin",
        credential=Credential("identifier:key"),
        transport=Answers(status, body),  # type: ignore[arg-type]
        clock=lambda: datetime(2026, 10, 7, tzinfo=UTC),
    )
    with pytest.raises(AudienceSyncError) as raised:
        api.ask("PATCH", "website/w/people/data/p", {"data": {}}, may_send=at_once)
    return f"{raised.value} {raised.value.hint}"


@pytest.mark.parametrize("status", [400, 401, 402, 403, 405, 413, 420, 423, 429, 500, 302])
@pytest.mark.parametrize(
    "reason",
    [f"{EMAIL} is invalid", f"invalid_{EMAIL}", EMAIL, [EMAIL], {"of": EMAIL}, None, 7],
)
def test_nothing_of_anybody(status: int, reason: Any) -> None:
    body = {"error": True, "reason": reason, "data": {"email": EMAIL}}
    assert "private" not in said(status, orjson.dumps(body))
    assert "private" not in said(status, EMAIL.encode())


def test_words_of_crisps_own() -> None:
    body = orjson.dumps({"error": True, "reason": "invalid_data", "data": {}})
    assert "(400, invalid_data)" in said(400, body)
    assert "(401, invalid_session)" in said(401, body.replace(b"invalid_data", b"invalid_session"))
