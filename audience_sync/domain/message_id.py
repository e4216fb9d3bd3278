"""messageId: the same transition has the same id and body, another transition another id (P4)."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

PREFIX = "audience-sync-"
"""Segment allows 100 characters; prefix and 32 bytes of hash in hex make 78."""


def canonical(body: dict[str, Any]) -> bytes:
    """The body as it is hashed: keys sorted, no white space, UTF-8."""
    text = json.dumps(
        body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def message_id(
    body: bytes, *, installation: str, destination: str, audience: str, span_number: int
) -> str:
    """The id of one call.

    Args:
        body: ``canonical`` of the call without ``messageId`` and ``sentAt``.
        destination: the destination's fingerprint (endpoint and credential).
        span_number: number of the span among those of this audience and destination.
    """
    digest = hashlib.blake2b(digest_size=32)
    for part in (installation, destination, audience, str(span_number)):
        data = part.encode()
        digest.update(len(data).to_bytes(4, "big") + data)
    digest.update(body)
    return PREFIX + digest.hexdigest()


def keyed(secret: str, *parts: str) -> str:
    """A reference that only this installation can make: for fingerprints, and users in logs."""
    return hmac.new(secret.encode(), "\0".join(parts).encode(), "sha256").hexdigest()[:20]
