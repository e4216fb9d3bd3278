from __future__ import annotations

import pytest

from audience_sync.domain.span import Books, Refusal, Tally, Window


def test_the_books_add_up() -> None:
    books = Books(total=10)
    tally = Tally(
        last_user_id="u5",
        accepted=2,
        rejected=[Refusal(user_id="u4", reason="too large")],
        skipped=[Refusal(user_id="u2", reason="no e-mail"), Refusal(user_id="u5", reason="forgot")],
    )
    assert books.remaining == 10
    assert books.add(tally) == Books(total=10, accepted=2, rejected=1, skipped=2)
    assert books.add(tally).handled == 5
    assert books.add(tally).add(tally).remaining == 0


@pytest.mark.parametrize(
    ("total", "most"), [(0, 100), (9_999, 100), (10_100, 101), (1_000_000, 10_000)]
)
def test_more_rejections_than_a_hundred_and_one_per_cent_are_too_many(
    total: int, most: int
) -> None:
    assert Books(total=total).max_rejected == most


def test_a_tally_absorbs_what_follows() -> None:
    first = Tally(last_user_id="b", accepted=2, skipped=[Refusal(user_id="a", reason="r")])
    first.absorb(Tally(last_user_id="d", accepted=1, rejected=[Refusal(user_id="c", reason="s")]))
    assert first == Tally(
        last_user_id="d",
        accepted=3,
        rejected=[Refusal(user_id="c", reason="s")],
        skipped=[Refusal(user_id="a", reason="r")],
    )


def test_a_finished_batch_counts_until_those_before_it_are_finished_too() -> None:
    window = Window(2)
    first, second = window.start(), window.start()
    assert window.full
    window.finish(second, Tally(last_user_id="b"))
    assert window.full
    assert list(window.ripe()) == []
    window.finish(first, Tally(last_user_id="a"))
    assert [tally.last_user_id for tally in window.ripe()] == ["a", "b"]
    assert not window.full
    assert len(window) == 0
