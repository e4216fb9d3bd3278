from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from audience_sync.domain.audience import Kind, Row, Tell
from audience_sync.domain.change import Change
from audience_sync.domain.identify import Computation
from audience_sync.domain.track import event_of, track

AT = datetime(2026, 1, 31, tzinfo=UTC)
VIP = Computation(key="vip", kind=Kind.AUDIENCE, installation="i1")
LIFETIME_VALUE = Computation(key="lifetime_value", kind=Kind.COMPUTED_TRAIT, installation="i1")


def call(
    before: Row | None,
    after: Row | None,
    computation: Computation = VIP,
    integrations: dict[str, Any] | None = None,
) -> dict[str, Any] | None:
    change = Change(user_id="u1", before=before, after=after)
    return track(change, computation, timestamp=AT, integrations=integrations or {})


def test_the_whole_call() -> None:
    assert call(None, {"email": "u1@example.com", "plan": "pro"}, integrations={"All": False}) == {
        "type": "track",
        "userId": "u1",
        "event": "Audience Entered",
        "properties": {"audience_key": "vip", "vip": True},
        "context": {
            "integrations": {"personas": False},
            "library": {"name": "audience-sync"},
            "personas": VIP.personas(),
            "traits": {"email": "u1@example.com"},
        },
        "integrations": {"All": False},
        "timestamp": "2026-01-31T00:00:00.000Z",
    }


@pytest.mark.parametrize(
    ("before", "after", "computation", "event", "properties"),
    [
        (None, {}, VIP, "Audience Entered", {"audience_key": "vip", "vip": True}),
        ({"plan": "pro"}, None, VIP, "Audience Exited", {"audience_key": "vip", "vip": False}),
        (
            None,
            {"value": 9.5},
            LIFETIME_VALUE,
            "Trait Computed",
            {"trait_key": "lifetime_value", "lifetime_value": 9.5},
        ),
        (
            {"value": 9.5},
            {"value": False},
            LIFETIME_VALUE,
            "Trait Computed",
            {"trait_key": "lifetime_value", "lifetime_value": False},
        ),
        (
            {"value": 9.5},
            None,
            LIFETIME_VALUE,
            "Trait Computed",
            {"trait_key": "lifetime_value", "lifetime_value": None},
        ),
    ],
)
def test_events(
    before: Row | None, after: Row | None, computation: Computation, event: str, properties: Row
) -> None:
    made = call(before, after, computation)
    assert made is not None
    assert (made["event"], made["properties"]) == (event, properties)
    assert "traits" not in made["context"]


def test_an_update_of_an_audience_is_no_event() -> None:
    assert call({"plan": "free"}, {"plan": "pro"}) is None
    assert event_of(Tell.UPDATED, Kind.AUDIENCE) is None


def test_one_who_left_has_the_last_known_email() -> None:
    made = call({"email": "u1@example.com"}, None)
    assert made is not None
    assert made["context"]["traits"] == {"email": "u1@example.com"}


@pytest.mark.parametrize("email", [None, ""])
def test_without_an_email_there_are_no_traits(email: str | None) -> None:
    made = call(None, {"email": email})
    assert made is not None
    assert "traits" not in made["context"]
