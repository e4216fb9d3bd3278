"""The sandbox as Crisp: what it answers, over real sockets."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from audience_sync.sandbox.options import WEBSITE
from tests.fakes.sandbox import Sandbox, coded, sandbox

OTHER = "0c0ffee0-0000-4000-8000-000000000002"
STRANGE = ["a/b@example.com", "plus+tag@example.com", "50%25@example.com", "ä?&#@example.com"]


@pytest.fixture
def crisp() -> Iterator[Sandbox]:
    with sandbox(websites=(WEBSITE, OTHER)) as made:
        yield made


def refused(answer: httpx.Response, status: int, reason: str) -> bool:
    body = {"error": True, "reason": reason, "data": {}}
    return answer.status_code == status and answer.json() == body


def new(email: str = "ana@example.com", **person: Any) -> dict[str, Any]:
    return {"email": email, "person": {"nickname": "Ana", **person}}


def test_a_person_is_created_once(crisp: Sandbox) -> None:
    answer = crisp.crisp("POST", "people/profile", new())
    assert answer.status_code == 201
    assert answer.json()["error"] is False
    assert uuid.UUID(answer.json()["data"]["people_id"]).version == 4
    assert refused(crisp.crisp("POST", "people/profile", new()), 409, "people_exists")
    again = new("ANA@Example.com")
    assert refused(crisp.crisp("POST", "people/profile", again), 409, "people_exists")
    assert len(crisp.people()) == 1


@pytest.mark.parametrize(
    "content",
    [
        {"person": {"nickname": "Ana"}},
        {"email": None, "person": {"nickname": "Ana"}},
        {"email": "", "person": {"nickname": "Ana"}},
        {"email": "ana", "person": {"nickname": "Ana"}},
        {"email": 7, "person": {"nickname": "Ana"}},
        {"email": "ana@example.com"},
        {"email": "ana@example.com", "person": {}},
        {"email": "ana@example.com", "person": {"nickname": 7}},
        {"email": "ana@example.com", "person": []},
        {**new(), "data": {"vip": True}},
        {**new(), "segments": "customers"},
        new(shoe_size=42),
        [],
        None,
    ],
)
def test_what_is_no_profile_is_refused(crisp: Sandbox, content: Any) -> None:
    assert refused(crisp.crisp("POST", "people/profile", content), 400, "invalid_data")
    assert crisp.people() == []


@pytest.mark.parametrize("email", STRANGE)
def test_a_person_is_found_by_id_and_by_encoded_email(crisp: Sandbox, email: str) -> None:
    people_id = crisp.person(email)
    for who in (people_id, coded(email)):
        assert crisp.crisp("HEAD", f"people/profile/{who}").status_code == 200
        found = crisp.crisp("GET", f"people/profile/{who}").json()["data"]
        assert (found["people_id"], found["email"]) == (people_id, email)
        assert crisp.crisp("PATCH", f"people/data/{who}", {"data": {"n": 1}}).status_code == 200
    assert crisp.data(people_id) == {"n": 1}


def test_a_slash_that_is_not_encoded_leads_elsewhere(crisp: Sandbox) -> None:
    crisp.person("a/b@example.com")
    assert crisp.crisp("GET", "people/profile/a/b@example.com").status_code == 404


def test_a_head_has_no_body(crisp: Sandbox) -> None:
    crisp.person()
    known, unknown = (
        crisp.crisp("HEAD", f"people/profile/{who}%40example.com") for who in ("ana", "bo")
    )
    assert (known.status_code, unknown.status_code) == (200, 404)
    assert known.content == unknown.content == b""


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("GET", "people/profile/{}", None),
        ("PATCH", "people/profile/{}", {"person": {"nickname": "Bo"}}),
        ("GET", "people/data/{}", None),
        ("PATCH", "people/data/{}", {"data": {"vip": True}}),
        ("POST", "people/events/{}", {"text": "Bought"}),
        ("DELETE", "people/profile/{}", None),
    ],
)
@pytest.mark.parametrize("who", ["5637f229-0eea-4e5f-bcf7-91075042c1a6", "bo%40example.com"])
def test_nobody_and_nowhere_are_404(
    crisp: Sandbox, method: str, path: str, content: Any, who: str
) -> None:
    crisp.person()
    answer = crisp.crisp(method, path.format(who), content)
    assert refused(answer, 404, "people_not_found")
    elsewhere = crisp.crisp(method, path.format(who), content, website=str(uuid.uuid4()))
    assert refused(elsewhere, 404, "website_not_found")


def test_a_website_has_people_of_its_own(crisp: Sandbox) -> None:
    people_id = crisp.person()
    assert crisp.crisp("GET", f"people/profile/{people_id}", website=OTHER).status_code == 404
    assert crisp.crisp("POST", "people/profile", new(), website=OTHER).status_code == 201


def test_an_update_changes_what_it_names(crisp: Sandbox) -> None:
    content = new(phone="+4930123")
    people_id = crisp.crisp("POST", "people/profile", content).json()["data"]["people_id"]
    change = {"email": "ana.new@example.com", "person": {"avatar": "https://example.com/a.png"}}
    assert crisp.crisp("PATCH", f"people/profile/{people_id}", change).status_code == 200
    found = crisp.crisp("GET", f"people/profile/{people_id}").json()["data"]
    assert found["email"] == "ana.new@example.com"
    assert found["person"] == {
        "nickname": "Ana",
        "phone": "+4930123",
        "avatar": "https://example.com/a.png",
    }
    assert crisp.crisp("HEAD", "people/profile/ana%40example.com").status_code == 404


def test_an_email_of_somebody_else_is_a_conflict(crisp: Sandbox) -> None:
    crisp.person("ana@example.com")
    bo = crisp.person("bo@example.com")
    change = {"email": "Ana@example.com", "person": {"nickname": "Changed"}}
    assert refused(crisp.crisp("PATCH", f"people/profile/{bo}", change), 409, "people_exists")
    found = crisp.crisp("GET", f"people/profile/{bo}").json()["data"]
    assert (found["email"], found["person"]["nickname"]) == ("bo@example.com", "Ana")
    own = {"email": "BO@example.com"}
    assert crisp.crisp("PATCH", f"people/profile/{bo}", own).status_code == 200


def test_who_is_deleted_is_nobody_and_may_come_again(crisp: Sandbox) -> None:
    ana, bo = crisp.person("ana@example.com"), crisp.person("bo@example.com")
    assert crisp.crisp("DELETE", f"people/profile/{ana}").status_code == 200
    assert crisp.crisp("HEAD", f"people/profile/{ana}").status_code == 404
    assert crisp.crisp("HEAD", "people/profile/ana%40example.com").status_code == 404
    assert [person["people_id"] for person in crisp.people()] == [bo]
    assert crisp.person("Ana@example.com") != ana


def test_custom_data_is_merged(crisp: Sandbox) -> None:
    who = crisp.person()
    for data in ({"a": 1, "b": "x", "c": True}, {"b": "y", "d-e_f": 1.5}):
        assert crisp.crisp("PATCH", f"people/data/{who}", {"data": data}).status_code == 200
    assert crisp.data(who) == {"a": 1, "b": "y", "c": True, "d-e_f": 1.5}


@pytest.mark.parametrize(
    "content",
    [
        {"vip": True},
        {"data": {"vip": True}, "more": 1},
        {"data": [["vip", True]]},
        {"data": {"VIP": True}},
        {"data": {"vip 2026": True}},
        {"data": {"": True}},
        {"data": {"vip": None}},
        {"data": {"vip": [True]}},
        {"data": {"vip": {"is": True}}},
        {"data": {"good": 1, "vïp": True}},
    ],
)
def test_what_is_no_custom_data_is_refused(crisp: Sandbox, content: Any) -> None:
    who = crisp.person()
    answers = [crisp.crisp("PATCH", f"people/data/{who}", content)]
    if "data" in content:
        batch = {"people": {"profiles": [who]}, "data": content["data"]}
        answers.append(crisp.crisp("PATCH", "batch/data", batch | content))
    assert all(refused(answer, 400, "invalid_data") for answer in answers)
    assert crisp.data(who) == {}


def test_events(crisp: Sandbox) -> None:
    who = crisp.person()
    event = {"text": "Bought", "data": {"revenue": 39.95}, "color": "green"}
    assert crisp.crisp("POST", f"people/events/{who}", event).status_code == 201
    for bad in ({}, {"text": ""}, {"text": "x", "color": "mauve"}, {"text": "x", "size": 1}):
        assert refused(crisp.crisp("POST", f"people/events/{who}", bad), 400, "invalid_data")
    (person,) = crisp.people()
    assert person["event_count"] == 1
    assert person["events"][0] | event == person["events"][0]


def test_people_are_listed_in_pages(crisp: Sandbox) -> None:
    created = [crisp.person(f"p{n}@example.com") for n in range(120)]
    listed = []
    for page in (1, 2, 3, 4):
        answer = crisp.crisp("GET", f"people/profiles/{page}?per_page=50").json()["data"]
        listed += [person["people_id"] for person in answer]
        assert len(answer) == (50, 50, 20, 0)[page - 1]
    assert listed == created[::-1]
    assert len(crisp.crisp("GET", "people/profiles/1").json()["data"]) == 20


@pytest.mark.parametrize("path", ["1?per_page=51", "1?per_page=19", "1?per_page=x", "0", "-1", "x"])
def test_pages_that_there_are_not(crisp: Sandbox, path: str) -> None:
    assert refused(crisp.crisp("GET", f"people/profiles/{path}"), 400, "invalid_data")


def test_a_batch_sets_the_same_on_all(crisp: Sandbox) -> None:
    who = [crisp.person(f"p{n}@example.com") for n in range(3)]
    batch = {"people": {"profiles": [who[0], who[2], str(uuid.uuid4())]}, "data": {"vip": True}}
    assert crisp.crisp("PATCH", "batch/data", batch).status_code == 200
    assert [crisp.data(people_id) for people_id in who] == [{"vip": True}, {}, {"vip": True}]


def test_a_batch_is_bounded() -> None:
    with sandbox(batch_people=2) as crisp:
        who = [crisp.person(f"p{n}@example.com") for n in range(3)]
        batch = {"people": {"profiles": who}, "data": {"vip": True}}
        assert refused(crisp.crisp("PATCH", "batch/data", batch), 400, "invalid_data")
        assert crisp.data(who[0]) == {}


def test_websites_are_listed_for_plugins(crisp: Sandbox) -> None:
    def listed(page: str, tier: str = "plugin") -> httpx.Response:
        path = f"/v1/plugin/connect/websites/all/{page}"
        auth, headers = ("sandbox", "sandbox-key"), {"X-Crisp-Tier": tier}
        return crisp.ask(path, auth=auth, headers=headers)

    assert [w["website_id"] for w in listed("1").json()["data"]] == [WEBSITE, OTHER]
    assert listed("2").json()["data"] == []
    assert refused(listed("x"), 400, "invalid_data")
    assert refused(listed("1", "website"), 403, "not_allowed")


@pytest.mark.parametrize("auth", [None, ("sandbox", "wrong"), ("wrong", "sandbox-key")])
def test_another_key_is_refused(crisp: Sandbox, auth: tuple[str, str] | None) -> None:
    answer = crisp.crisp("POST", "people/profile", new(), auth=auth)
    assert refused(answer, 401, "invalid_session")
    assert crisp.people() == []
    assert crisp.counts()["quota"]["plugin"]["used"] == 0


@pytest.mark.parametrize("headers", [{}, {"X-Crisp-Tier": "owner"}, {"X-Crisp-Tier": "user"}])
def test_another_tier_is_refused(headers: dict[str, str]) -> None:
    with sandbox(tiers=("plugin",)) as crisp:
        answer = crisp.crisp("POST", "people/profile", new(), headers=headers)
        assert refused(answer, 403, "not_allowed")
        assert crisp.people() == []


def test_what_there_is_not(crisp: Sandbox) -> None:
    assert refused(crisp.crisp("PUT", "people/profile/x", {}), 405, "method_not_allowed")
    assert refused(crisp.crisp("GET", "people/nothing"), 404, "route_not_found")
    assert crisp.ask("/v1/website", auth=("sandbox", "sandbox-key")).status_code in (403, 404)


def test_a_quota_is_used_up_until_the_day_turns() -> None:
    with sandbox(quota=3) as crisp:
        who = crisp.person()
        statuses = [crisp.crisp("GET", f"people/data/{who}").status_code for _ in range(4)]
        assert statuses == [200, 200, 423, 423]
        other = crisp.crisp("GET", f"people/data/{who}", headers={"X-Crisp-Tier": "website"})
        assert other.status_code == 200
        assert crisp.counts()["quota"]["plugin"] == {"limit": 3, "used": 3}
        assert crisp.ask("/sandbox/day", "POST").json() == {"today": "2026-02-02"}
        assert crisp.crisp("GET", f"people/data/{who}").status_code == 200
        crisp.now += timedelta(days=1)
        assert crisp.counts()["quota"]["plugin"]["used"] == 0
        assert crisp.counts()["today"] == "2026-02-03"


@pytest.mark.parametrize("days", ["", "x", "-1", "1.5", "99999999999"])
def test_a_day_that_is_no_number_turns_nothing(crisp: Sandbox, days: str) -> None:
    answer = crisp.ask(f"/sandbox/day?days={days}", "POST")
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("days is not a number")
    assert crisp.counts()["today"] == "2026-02-01"
    assert crisp.ask("/sandbox/calls.json?after=abc").status_code == 400


def test_quotas_are_those_that_crisp_documents(crisp: Sandbox) -> None:
    limits = {tier: quota["limit"] for tier, quota in crisp.counts()["quota"].items()}
    assert limits == {"plugin": 5_000, "website": 10_000, "user": None}


def test_a_rate_is_kept() -> None:
    with sandbox(rate=0.001) as crisp:
        crisp.person()
        answer = crisp.crisp("GET", "people/profile/ana%40example.com")
        assert refused(answer, 429, "rate_limited")
        assert crisp.counts()["quota"]["plugin"]["used"] == 1


def test_a_read_after_a_write_may_be_stale() -> None:
    with sandbox(stale=3600.0) as crisp:
        path = "people/profile/ana%40example.com"
        assert crisp.crisp("HEAD", path).status_code == 404
        who = crisp.person()
        assert crisp.crisp("HEAD", path).status_code == 404
        assert crisp.data(who) == {}
        crisp.crisp("PATCH", f"people/data/{who}", {"data": {"vip": True}})
        assert crisp.data(who) == {}
        assert crisp.ask("/sandbox/fresh", "POST").status_code == 200
        assert crisp.crisp("HEAD", path).status_code == 200
        assert crisp.data(who) == {"vip": True}


def test_a_body_is_not_read_without_end(crisp: Sandbox) -> None:
    who = crisp.person()
    answer = crisp.crisp("PATCH", f"people/data/{who}", {"data": {"a": "x" * 2_000_000}})
    assert refused(answer, 413, "too_large")


def test_every_request_is_counted_by_route_and_status(crisp: Sandbox) -> None:
    who = crisp.person()
    crisp.crisp("POST", "people/profile", new())
    crisp.crisp("PATCH", f"people/data/{who}", {"data": {"vip": True}})
    crisp.crisp("GET", "people/nothing")
    counts = crisp.counts()
    assert counts["requests"] == 4
    assert counts["days"] == {
        "2026-02-01": {
            "crisp": {
                "POST people/profile": {"201": 1, "409": 1},
                "PATCH people/data/{who}": {"200": 1},
                "unknown": {"404": 1},
            }
        }
    }
    assert [call["outcome"] for call in crisp.calls()] == ["201", "409", "200", "404"]
    newer = crisp.ask("/sandbox/calls.json?after=3").json()["calls"]
    assert [call["number"] for call in newer] == [4]
