from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from audience_sync.domain.audience import Kind, Row
from audience_sync.domain.change import Change
from audience_sync.domain.identify import Computation, identify, iso

AT = datetime(2026, 1, 31, tzinfo=UTC)
VIP = Computation(key="vip", kind=Kind.AUDIENCE, installation="i1")
LIFETIME_VALUE = Computation(key="lifetime_value", kind=Kind.COMPUTED_TRAIT, installation="i1")


def call(
    before: Row | None,
    after: Row | None,
    computation: Computation = VIP,
    integrations: dict[str, Any] | None = None,
) -> dict[str, Any]:
    change = Change(user_id="u1", before=before, after=after)
    return identify(change, computation, timestamp=AT, integrations=integrations or {})


def test_the_whole_call() -> None:
    assert call(None, {"email": "u1@example.com"}) == {
        "type": "identify",
        "userId": "u1",
        "traits": {"email": "u1@example.com", "vip": True},
        "context": {
            "integrations": {"personas": False},
            "library": {"name": "audience-sync"},
            "personas": VIP.personas(),
        },
        "timestamp": "2026-01-31T00:00:00.000Z",
    }


@pytest.mark.parametrize(
    ("before", "after", "traits"),
    [
        (None, {}, {"vip": True}),
        ({"plan": "pro"}, None, {"plan": "pro", "vip": False}),
        ({"plan": "free"}, {"plan": "pro"}, {"plan": "pro", "vip": True}),
        (None, {"plan": None, "n": 0, "ok": False}, {"n": 0, "ok": False, "vip": True}),
        (None, {"vip": "a column"}, {"vip": True}),
    ],
)
def test_the_traits_of_an_audience(before: Row | None, after: Row | None, traits: Row) -> None:
    sent = call(before, after)["traits"]
    assert sent == traits
    assert sent["vip"] is (after is not None), "a JSON boolean: a string is no membership"


@pytest.mark.parametrize(
    ("before", "after", "traits"),
    [
        (None, {"value": 9.5, "plan": "pro"}, {"plan": "pro", "lifetime_value": 9.5}),
        ({"value": 9.5}, {"value": 12.0}, {"lifetime_value": 12.0}),
        ({"value": 9.5}, None, {"lifetime_value": None}),
    ],
)
def test_the_traits_of_a_computed_trait(before: Row | None, after: Row | None, traits: Row) -> None:
    assert call(before, after, LIFETIME_VALUE)["traits"] == traits


def test_personas_name_the_trait_key_and_are_the_same_for_the_same_installation() -> None:
    personas = VIP.personas()
    assert personas["computation_key"] == "vip"
    assert personas["computation_class"] == "audience"
    assert personas["computation_id"].startswith("aud_")
    assert personas["namespace"] == personas["space_id"]
    assert personas["space_id"].startswith("spa_")
    assert LIFETIME_VALUE.personas()["computation_class"] == "trait"
    assert LIFETIME_VALUE.personas()["computation_id"].startswith("tra_")
    other = Computation(key="vip", kind=Kind.AUDIENCE, installation="i2").personas()
    assert other["computation_id"] != personas["computation_id"]
    assert other["space_id"] != personas["space_id"]


def test_integrations_travel_only_when_there_are_some() -> None:
    routing = {"All": False, "Crisp": True}
    assert "integrations" not in call(None, {})
    assert call(None, {}, integrations=routing)["integrations"] == routing


def test_times_travel_in_utc_with_milliseconds() -> None:
    east = timezone(timedelta(hours=5, minutes=30))
    assert iso(datetime(2026, 1, 31, 5, 30, 0, 123_456, tzinfo=east)) == "2026-01-31T00:00:00.123Z"
