"""How many requests a delivery takes, as far as it can be known before."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Amount:
    """At least so many, and at most; equal where nothing is left open."""

    least: int = 0
    most: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(least=self.least + other.least, most=self.most + other.most)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(least=self.least - other.least, most=self.most - other.most)

    @property
    def is_exact(self) -> bool:
        return self.least == self.most


NONE = Amount()


def exactly(count: int) -> Amount:
    return Amount(least=count, most=count)


@dataclass(frozen=True, kw_only=True, slots=True)
class Requests:
    """Of one walk of a lane.

    ``saved``: how many fewer it takes than a walk of each audience by itself would, at least.
    ``skipped``: members who cannot be told yet, which takes none.
    """

    one_by_one: Amount = field(default=NONE)
    with_bulk: Amount = field(default=NONE)
    saved: int = 0
    skipped: int = 0

    def __add__(self, other: Requests) -> Requests:
        """Of two walks, one after the other."""
        return Requests(
            one_by_one=self.one_by_one + other.one_by_one,
            with_bulk=self.with_bulk + other.with_bulk,
            saved=self.saved + other.saved,
            skipped=self.skipped + other.skipped,
        )

    def __sub__(self, other: Requests) -> Requests:
        """Of walks without the first of them."""
        return Requests(
            one_by_one=self.one_by_one - other.one_by_one,
            with_bulk=self.with_bulk - other.with_bulk,
            saved=self.saved - other.saved,
            skipped=self.skipped - other.skipped,
        )
