from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from audience_sync.domain.span import Books, Refusal, Tally, Window


@given(st.integers(0, 12), st.integers(1, 5), st.data())
def test_results_come_in_order_over_a_contiguous_prefix_whatever_finishes_first(
    batches: int, size: int, data: st.DataObject
) -> None:
    """Workers finish in any order while the window is refilled, as delivery does it."""
    window = Window(size)
    waiting = list(range(batches))
    in_flight: list[int] = []
    finished: set[int] = set()
    handed: list[int] = []
    while waiting or in_flight:
        while waiting and not window.full:
            assert window.start() == waiting[0]
            in_flight.append(waiting.pop(0))
        assert len(window) <= size
        number = in_flight.pop(data.draw(st.integers(0, len(in_flight) - 1)))
        finished.add(number)
        window.finish(number, Tally(last_user_id=f"{number:02}", accepted=1))
        handed += [int(tally.last_user_id) for tally in window.ripe()]
        prefix = next(n for n in range(batches + 1) if n not in finished)
        assert handed == list(range(prefix))
    assert handed == list(range(batches))
    assert len(window) == 0


TALLIES = st.lists(st.tuples(*[st.integers(0, 3)] * 3), max_size=20)


@given(TALLIES, st.integers(0, 50))
def test_the_books_add_up_after_every_tally(parts: list[tuple[int, int, int]], left: int) -> None:
    books = Books(total=left + sum(map(sum, parts)))
    for accepted, rejected, skipped in parts:
        refused = [Refusal(user_id="u", reason="r")]
        tally = Tally(
            last_user_id="u",
            accepted=accepted,
            rejected=refused * rejected,
            skipped=refused * skipped,
        )
        books = books.add(tally)
        assert books.total == books.accepted + books.rejected + books.skipped + books.remaining
    assert books.remaining == left
    assert books.accepted == sum(accepted for accepted, _, _ in parts)


@given(TALLIES)
def test_tallies_taken_together_count_the_same(parts: list[tuple[int, int, int]]) -> None:
    refused = [Refusal(user_id="u", reason="r")]
    books = Books(total=1_000)
    joined = Tally(last_user_id="")
    for number, (accepted, rejected, skipped) in enumerate(parts):
        tally = Tally(
            last_user_id=f"{number:02}",
            accepted=accepted,
            rejected=refused * rejected,
            skipped=refused * skipped,
        )
        books = books.add(tally)
        joined.absorb(tally)
        assert joined.last_user_id == tally.last_user_id
    assert Books(total=1_000).add(joined) == books
