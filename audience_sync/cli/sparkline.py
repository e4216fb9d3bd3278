"""A row of numbers as a row of bars."""

from __future__ import annotations

from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 48


def sparkline(numbers: Sequence[int], width: int = WIDTH) -> str:
    """The lowest is the lowest bar and the highest the highest; all alike are in the middle.

    More than ``width`` are thinned out evenly; the first and the last stay.
    """
    if len(numbers) > width:
        step = (len(numbers) - 1) / (width - 1)
        numbers = [numbers[round(i * step)] for i in range(width)]
    if not numbers:
        return ""
    low, high = min(numbers), max(numbers)
    if low == high:
        return BARS[len(BARS) // 2 - 1] * len(numbers)
    return "".join(BARS[(n - low) * (len(BARS) - 1) // (high - low)] for n in numbers)
