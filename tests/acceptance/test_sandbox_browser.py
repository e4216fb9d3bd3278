"""The sandbox's pages in a real browser, on a phone and on a desk, by day and by night.

Pictures of them are in ``build/sandbox/`` afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Browser, Page, expect

from audience_sync.sandbox.options import failure
from tests.acceptance.browser import chromium
from tests.fakes.sandbox import Sandbox, sandbox

PICTURES = Path(__file__).parents[2] / "build" / "sandbox"
PAGES = {
    "overview": "/",
    "people": "/people",
    "events": "/events",
    "requests": "/requests",
    "refusals": "/requests?refused=1",
}
PHONE, DESK = (390, 844), (1280, 900)
NAMES = (
    "Ana Duarte",
    "Łukasz Wójcik",
    'O\'Brien & Söhne "GmbH"',
    "<script>document.title = 'broken'</script>",
    '"><img src=x onerror="document.title=\'broken\'">',
    "Jo\u202etxet.exe",
    "W" * 150,
)
CONTRASTS = """() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= .04045
    ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) {
    const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; }
    return [255, 255, 255]; };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || e.closest("svg, .hidden, .skip, thead")) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    found.push([(a + .05) / (b + .05), walk.currentNode.data.trim().slice(0, 30)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def filled() -> Iterator[Sandbox]:
    """An hour of a shop that somebody tries."""
    with sandbox(failures=(failure("429:0.06"),), seed=5) as made:
        for number in range(70):
            made.now += timedelta(seconds=17 + number % 7 * 9)
            fill(made, number)
        yield made


def fill(made: Sandbox, number: int) -> None:
    email, name = f"person{number}@example.com", NAMES[number % len(NAMES)]
    content = {"email": email, "person": {"nickname": name, "phone": "+49 30 1234567"}}
    made.crisp("POST", "people/profile", content)
    who = f"person{number}%40example.com"
    data = {"vips_2026": number % 3 == 0, "lifetime_value": number * 12.5, "user_id": f"u{number}"}
    made.crisp("PATCH", f"people/data/{who}", {"data": data})
    if number % 9 == 0:
        made.crisp("PATCH", f"people/data/{who}", data)
    properties = {"revenue": 39.95, "shippingMethod": "2-day"}
    if number % 4 == 0:
        made.crisp(
            "POST", f"people/events/{who}", {"text": "Completed Purchase", "data": properties}
        )
    if number % 5 == 0:
        traits = {"email": email, "name": name, "vips_2026": True}
        made.segment("identify", {"userId": f"u{number}", "traits": traits})
        event = {"event": "Audience Entered", "properties": {"audience_key": "vips_2026"}}
        made.segment("track", {"userId": f"u{number}", **event})


@contextmanager
def opened(browser: Browser, size: tuple[int, int] = DESK, **how: Any) -> Iterator[Page]:
    """A page in which every complaint, question and address elsewhere is an error."""
    viewport: Any = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=viewport, **how)
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("response", lambda a: wrong.append(f"{a.status} {a.url}") if a.status != 200 else None)
    page.on("request", lambda r: wrong.append(r.url) if "//127.0.0.1:" not in r.url else None)
    yield page
    context.close()
    assert wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("name", PAGES)
def test_every_page_can_be_read(
    browser: Browser, filled: Sandbox, name: str, size: tuple[int, int], scheme: Any
) -> None:
    with opened(browser, size, color_scheme=scheme) as page:
        page.goto(filled.base + PAGES[name])
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]
        assert page.locator("h1").count() == 1
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 20
        assert [found for found in contrasts if found[0] < 4.5] == []
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        dark = sum(map(int, re.findall(r"\d+", background))) < 200
        assert dark is (scheme == "dark")
        PICTURES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=PICTURES / f"{name}-{size[0]}-{scheme}.png")


def test_a_phone_gets_cards_and_a_desk_a_table(browser: Browser, filled: Sandbox) -> None:
    shown = {}
    for size in (PHONE, DESK):
        with opened(browser, size) as page:
            page.goto(filled.base + "/requests")
            assert page.get_by_role("row").count() > 20
            cells = page.locator("tbody tr").first.get_by_role("cell")
            label = cells.first.evaluate("e => getComputedStyle(e, '::before').content")
            tops = {round(cell.bounding_box()["y"]) for cell in cells.all()}  # type: ignore[index]
            shown[size] = label, len(tops)
    assert shown == {PHONE: ('"Time (UTC)"', 5), DESK: ("none", 1)}


def test_somebody_is_looked_for_without_a_script(browser: Browser, filled: Sandbox) -> None:
    with opened(browser, PHONE, java_script_enabled=False) as page:
        page.goto(filled.base)
        page.get_by_role("navigation", name="Pages").get_by_role("link", name="People").click()
        box = page.get_by_label(re.compile("Name, e-mail, id"))
        box.fill("person15@example.com")
        page.get_by_label("Where").select_option("Segment")
        box.press("Enter")
        expect(page.get_by_role("status")).to_have_text(re.compile("^1 person for"))
        expect(page.get_by_role("article")).to_have_count(1)
        page.get_by_text("1 event").click()
        assert page.get_by_text("Audience Entered").is_visible()
        assert page.get_by_label(re.compile("Name")).input_value() == "person15@example.com"


def test_all_people_are_reached_by_links(browser: Browser, filled: Sandbox) -> None:
    with opened(browser) as page:
        page.goto(filled.base + "/people")
        names = page.locator("article .of").all_inner_texts()
        older = page.get_by_role("link", name="Older")
        while older.count():
            # Not by a click, which does not wait until the next page is there.
            page.goto(urljoin(page.url, older.get_attribute("href")))
            names += page.locator("article .of").all_inner_texts()
        assert len(names) == len(set(names))
        known = filled.ask("/sandbox/people.json").json()
        assert len(names) == len(filled.people()) + len(known["segment"])


def test_names_that_want_to_be_markup_are_names(browser: Browser, filled: Sandbox) -> None:
    with opened(browser) as page:
        page.goto(filled.base + "/people?q=document.title")
        assert page.title() == "People – audience-sync sandbox"
        assert page.locator("article").count() > 10
        assert page.locator("article img, article script").count() == 0


def test_it_can_be_used_from_the_keyboard(browser: Browser, filled: Sandbox) -> None:
    with opened(browser) as page:
        page.goto(filled.base)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "To the content"
        page.keyboard.press("Enter")
        page.wait_for_url("**#content")
        for _ in range(3):
            page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"


def test_the_chart_is_told_in_words_too(browser: Browser, filled: Sandbox) -> None:
    with opened(browser) as page:
        page.goto(filled.base)
        chart = page.get_by_role("img")
        assert chart.count() == 1
        assert page.get_by_role("img", name=re.compile("60 minutes until .* answered")).count() == 1
        assert chart.locator("rect").count() > 30
