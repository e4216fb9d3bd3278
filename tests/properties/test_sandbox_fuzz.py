"""Whatever is sent to a sandbox, it answers, and its pages can be shown."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from audience_sync.sandbox.asked import Asked
from audience_sync.sandbox.exchange import exchange
from audience_sync.sandbox.faults import FAULTS
from audience_sync.sandbox.options import WEBSITE, Options, failure
from audience_sync.sandbox.pages import Pages
from audience_sync.sandbox.state import State
from tests.fakes.sandbox import NOON

NAMES = """v1 website plugin connect all 1 people profile data events profiles batch identify track
    userId anonymousId traits properties event messageId type email person nickname text color vip
    ana@example.com"""
WORDS = st.sampled_from(NAMES.split())
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
    | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            WORDS | st.text(st.characters(exclude_categories=("Cs",)), max_size=4),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
BODIES = st.binary(max_size=30) | VALUES.map(orjson.dumps)
SEGMENTS = st.lists(WORDS | st.text(max_size=5), max_size=5)
ROUTES = st.sampled_from(
    [
        ("POST", "v1/batch"), ("POST", "v1/identify"), ("POST", "v1/track"),
        *(
            (method, f"v1/website/{WEBSITE}/{path}")
            for method, path in (
                ("POST", "people/profile"), ("PATCH", "people/profile/ana@example.com"),
                ("PATCH", "people/data/ana@example.com"), ("GET", "people/profiles/1"),
                ("POST", "people/events/ana@example.com"), ("PATCH", "batch/data"),
            )
        ),
    ]
)  # fmt: skip
KEY = {"authorization": "Basic c2FuZGJveDpzYW5kYm94LWtleQ==", "x-crisp-tier": "plugin"}
WRITE_KEY = {"authorization": "Basic c2FuZGJveC13cml0ZS1rZXk6"}
ALL = tuple(failure(f"{name}:0.05") for name in FAULTS)


@given(
    st.lists(
        st.tuples(
            ROUTES | st.tuples(st.sampled_from(["GET", "PUT"]), SEGMENTS.map("/".join)), BODIES
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_everything_is_answered(asked: list[tuple[tuple[str, str], bytes]], lenient: bool) -> None:
    state = State(Options(failures=ALL, lenient=lenient), lambda: NOON, lambda: 0.0)
    known = {"email": "ana@example.com", "person": {"nickname": "Ana"}}
    state.websites[WEBSITE].add(known["email"], {"person": known["person"]})  # type: ignore[arg-type]
    for (method, path), body in asked:
        segments = tuple(path.split("/"))
        headers = KEY if "website" in segments else WRITE_KEY
        made = exchange(
            state,
            Asked(
                method=method, path=path, segments=segments, query={}, headers=headers, body=body
            ),
        )
        assert 200 <= made.answer.status < 600
        assert made.answer.status != 500
        orjson.loads(made.answer.body)
    pages = Pages(state)
    for page in (pages.overview, pages.people, pages.events, pages.requests):
        assert b"<script" not in asyncio.run(page(request())).body  # type: ignore[arg-type]


def request() -> Request:
    headers = [(b"host", b"localhost")]
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    return Request({**scope, "query_string": b"q=ana"})
