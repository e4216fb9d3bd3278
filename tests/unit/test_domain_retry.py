from __future__ import annotations

from datetime import UTC, datetime

import pytest

from audience_sync.domain.retry import Answer, backoff, classify, retry_after

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
DAY = 86_400.0


@pytest.mark.parametrize(
    ("statuses", "answer"),
    [
        ([200, 201, 202, 204, 299], Answer.OK),
        ([408, 410, 425, 460, 500, 502, 503, 504, 520, 599], Answer.RETRY),
        ([420, 429], Answer.SLOW_DOWN),
        ([400, 413, 422], Answer.TOO_LARGE_OR_BAD),
        ([401, 403], Answer.CREDENTIALS),
        ([100, 301, 302, 307, 404, 405, 409, 451, 501, 505, 511], Answer.MISCONFIGURED),
    ],
)
def test_what_a_status_means(statuses: list[int], answer: Answer) -> None:
    assert {classify(status) for status in statuses} == {answer}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("-5", 0.0),
        ("-" + "9" * 30, 0.0),
        ("0" * 30 + "5", 5.0),
        ("1000000000", DAY),
        ("9" * 5_000, DAY),
        ("Sat, 31 Jan 2026 12:01:30 GMT", 90.0),
        ("Sat, 31 Jan 2026 13:01:30 +0100", 90.0),
        ("Sat, 31 Jan 2026 12:01:30 -0000", 90.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", DAY),
        ("Mon, 01 Jan 0001 00:00:00 +2300", 0.0),
        ("soon", None),
        ("--5", None),
        ("nan", None),
        ("inf", None),
        ("٣", None),
        ("Sat, 99 Jan 2026 12:00:00 GMT", None),
    ],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert retry_after(text, NOW) == seconds


def test_backoff_doubles_up_to_a_minute() -> None:
    waits = [backoff(attempt, 0.0) for attempt in range(13)]
    assert waits[:4] == pytest.approx([0.05, 0.1, 0.2, 0.4])
    assert waits[-1] == 30.0
    assert backoff(10**9, 0.999) < 60.0
