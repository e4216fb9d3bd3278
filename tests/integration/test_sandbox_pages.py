"""The sandbox's pages: what they show, whom they answer, and that nothing breaks out of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from audience_sync.sandbox.gate import refusal
from audience_sync.sandbox.options import WEBSITE, failure
from tests.fakes.sandbox import Sandbox, sandbox

HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</title></textarea><svg onload=alert(1)>",
    "{{ 711 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "&lt;b&gt;",
    "\u202egnp.exe\u0000\u0007",
]
PAGES = ("/", "/people", "/events", "/requests", "/requests?refused=1")
TAGS = """html head meta title link body a header footer nav main section article h1 h2 h3 p b q bdi
    ul li dl dt dd div span small code pre table thead tbody tr th td time form label input select
    option button details summary figure figcaption svg line rect wbr"""
ATTRIBUTES = """lang charset name content rel href type class id aria-label aria-labelledby
    aria-current datetime viewbox role preserveaspectratio x y x1 x2 y1 y2 width height scope
    data-label tabindex method action for value maxlength autocomplete selected"""


class Page(HTMLParser):
    """Tags, attributes and links of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "action", "src")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def hostile() -> Iterator[Sandbox]:
    """Every text that others give is one that wants to be markup."""
    with sandbox() as made:
        for number, text in enumerate(HOSTILE):
            content = {"email": f"p{number}@example.com", "person": {"nickname": text}}
            who = made.crisp("POST", "people/profile", content).json()["data"]["people_id"]
            made.crisp("PATCH", f"people/data/{who}", {"data": {"note": text}})
            made.crisp("POST", f"people/events/{who}", {"text": text, "data": {text: text}})
            made.crisp("GET", f"people/profile/{text.encode().hex()}", params={"q": text})
            traits: dict[str, Any] = {text: text, "deep": {text: [text]}, "name": text}
            made.segment("identify", {"userId": text, "traits": traits})
            made.segment("track", {"userId": text, "event": text, "properties": traits})
            made.segment("track", {"userId": text, "event": "", "properties": traits})
        yield made


@pytest.fixture(scope="module")
def filled() -> Iterator[Sandbox]:
    with sandbox() as made:
        for number in range(60):
            who = made.person(f"p{number}@example.com", f"Person {number}")
            data = {"vip": number < 3, "plan": "gold" if number == 7 else "basic"}
            made.crisp("PATCH", f"people/data/{who}", {"data": data})
            made.now += timedelta(seconds=1)
        made.segment(
            "identify", {"userId": "u1", "traits": {"vip": True, "email": "u1@example.org"}}
        )
        yield made


@pytest.mark.parametrize("page", [*PAGES, *(f"/people?q={n}" for n in range(len(HOSTILE)))])
def test_nothing_breaks_out_of_the_page(hostile: Sandbox, page: str) -> None:
    path, _, number = page.partition("?q=")
    params = {"q": HOSTILE[int(number)], "at": HOSTILE[int(number)]} if number else None
    answer = hostile.ask(path if number else page, params=params)
    assert answer.status_code == 200
    found = Page(answer.text)
    assert found.tags <= set(TAGS.split())
    assert found.attributes <= set(ATTRIBUTES.split())
    assert not [link for link in found.links if ":" in link]
    assert "4977" not in found.text


def test_an_empty_text_is_seen_and_a_refusal_says_why() -> None:
    with sandbox() as made:
        who = made.person()
        made.crisp("PATCH", f"people/data/{who}", {"data": {"spent": ""}})
        made.crisp(
            "POST", "people/profile", {"email": "ana@example.com", "person": {"nickname": "A"}}
        )
        assert 'spent""' in "".join(Page(made.ask("/people").text).text.split())
        assert "somebody else has this e-mail" in Page(made.ask("/").text).text


@pytest.mark.parametrize("text", HOSTILE[:6])
def test_hostile_names_are_shown_as_they_are(hostile: Sandbox, text: str) -> None:
    assert Page(hostile.ask("/people").text).text.count(text) >= 4
    assert text in Page(hostile.ask("/events").text).text
    assert text in Page(hostile.ask("/people", params={"q": text}).text).text


@pytest.mark.parametrize("path", [*PAGES, "/style.css", "/icon.svg", "/nothing", "/sandbox/day"])
def test_headers_keep_scripts_and_frames_out(hostile: Sandbox, path: str) -> None:
    headers = hostile.ask(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil"])
@pytest.mark.parametrize("path", ["/", "/people", "/sandbox/people.json"])
def test_a_page_elsewhere_cannot_give_us_its_name(hostile: Sandbox, host: str, path: str) -> None:
    answer = hostile.ask(path, headers={"host": host})
    assert answer.status_code == 421
    assert "@example.com" not in answer.text


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"origin": "null"}])
def test_a_page_elsewhere_cannot_turn_the_day(filled: Sandbox, headers: dict[str, str]) -> None:
    today = filled.counts()["today"]
    assert filled.ask("/sandbox/day", "POST", headers=headers).status_code == 403
    assert filled.counts()["today"] == today


@pytest.mark.parametrize(
    ("client", "path", "status"),
    [
        ("192.0.2.7", "/sandbox/people.json", 403),
        ("192.0.2.7", "/sandbox/day", 403),
        ("2001:db8::7", "/sandbox/counts.json", 403),
        ("192.0.2.7", "/people", None),
        ("127.0.0.1", "/sandbox/people.json", None),
        ("::1", "/sandbox/people.json", None),
    ],
)
def test_json_is_for_this_machine(client: str, path: str, status: int | None) -> None:
    headers = [(b"host", b"192.0.2.1:8345")]
    refused = refusal(
        {"type": "http", "method": "GET", "path": path, "headers": headers, "client": (client, 9)}
    )
    assert (refused and refused[0]) == status


def test_the_day_is_turned_by_post_alone(filled: Sandbox) -> None:
    assert filled.ask("/sandbox/day").status_code == 405
    assert filled.ask("/sandbox/day?days=2", "POST").status_code == 200


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ("", 61),
        ("person 7", 1),
        ("PERSON 7", 1),
        ("p7@example.com", 1),
        ("u1@example.org", 1),
        ("vip=true", 4),
        ("plan=gold", 1),
        ("gold", 1),
        ("vip=maybe", 0),
        (WEBSITE, 0),
    ],
)
def test_people_are_found(filled: Sandbox, query: str, number: int) -> None:
    text = Page(filled.ask("/people", params={"q": query}).text).text
    assert f"{number} {'person' if number == 1 else 'people'}" in text


def test_people_are_shown_in_pages(filled: Sandbox) -> None:
    pages = [filled.ask("/people", params={"page": n}).text for n in (1, 2, 3, 99, "x")]
    assert [text.count("<article") for text in pages] == [25, 25, 11, 11, 25]
    assert "Page 2 of 3" in pages[1]
    assert 'rel="prev"' not in pages[0]
    assert 'rel="next"' not in pages[2]
    assert "Person 0<" in pages[2]
    found = filled.ask("/people", params={"at": "segment"}).text
    assert found.count("<article") == 1


def test_the_overview_says_what_came_and_what_was_refused() -> None:
    with sandbox(failures=(failure("503:0"),), quota=2) as made:
        made.person()
        made.crisp("PATCH", "people/data/ana%40example.com", {"vip": True})
        made.crisp("GET", "people/profile/ana%40example.com")
        found = made.ask("/")
        text = Page(found.text).text
        assert "3 requests" in text.replace("\n", " ")
        assert '{"data": {…}}' in text
        assert "the quota of the tier plugin is used up" in text
        assert "60 minutes until 12:00 UTC: 1 answered, 2 refused or failed" in text
        assert f'endpoint = "{made.base}/v1"' in text
        assert found.text.count("<rect") == 2


def test_the_newest_requests_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audience_sync.sandbox.journal.KEPT", 5)
    with sandbox() as made:
        for _ in range(8):
            made.segment("identify", {"userId": "u1"})
        answer = made.ask("/sandbox/calls.json").json()
        assert (len(answer["calls"]), answer["dropped"]) == (5, 3)
        assert made.counts()["requests"] == 8
        assert "3 older requests were dropped" in made.ask("/requests").text


def test_people_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audience_sync.sandbox.people.MOST_PEOPLE", 2)
    monkeypatch.setattr("audience_sync.sandbox.users.MOST_USERS", 2)
    with sandbox() as made:
        made.person("p1@example.com")
        made.person("p2@example.com")
        content = {"email": "p3@example.com", "person": {"nickname": "x"}}
        assert made.crisp("POST", "people/profile", content).status_code == 507
        for number in range(3):
            made.segment("identify", {"userId": f"u{number}"})
        found = made.ask("/sandbox/people.json").json()["segment"]
        assert [user["user_id"] for user in found] == ["u2", "u1"]


def test_the_newest_events_of_a_person_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audience_sync.sandbox.people.KEPT_EVENTS", 2)
    monkeypatch.setattr("audience_sync.sandbox.users.KEPT_EVENTS", 2)
    with sandbox() as made:
        who = made.person()
        for number in range(5):
            made.crisp("POST", f"people/events/{who}", {"text": f"e{number}"})
            made.segment("track", {"userId": "u1", "event": f"e{number}"})
        (person,), (user,) = made.people(), made.ask("/sandbox/people.json").json()["segment"]
        assert [event["text"] for event in person["events"]] == ["e3", "e4"]
        assert [event["event"] for event in user["events"]] == ["e3", "e4"]
        assert person["event_count"] == user["event_count"] == 5
