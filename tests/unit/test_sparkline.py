"""Numbers as bars."""

from __future__ import annotations

import pytest

from audience_sync.cli.sparkline import sparkline


@pytest.mark.parametrize(
    ("numbers", "bars"),
    [
        ([], ""),
        ([7], "▄"),
        ([0, 0], "▄▄"),
        ([0, 7], "▁█"),
        ([10, 11, 12, 13, 14, 15, 16, 17], "▁▂▃▄▅▆▇█"),
        ([1_000_000, 0, 1_000_000], "█▁█"),
    ],
)
def test_bars(numbers: list[int], bars: str) -> None:
    assert sparkline(numbers) == bars


def test_many_are_thinned_out_and_both_ends_stay() -> None:
    bars = sparkline([0] + [5] * 500 + [10], width=20)
    assert len(bars) == 20
    assert (bars[0], bars[-1]) == ("▁", "█")
    assert set(bars[1:-1]) == {"▄"}
