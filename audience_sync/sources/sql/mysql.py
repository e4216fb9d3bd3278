"""What MySQL and MariaDB say of a column's type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pyarrow as pa

DECIMALS = frozenset({0, 246})
ARROW: Mapping[int, pa.DataType] = MappingProxyType(
    {
        **dict.fromkeys((1, 2, 3, 8, 9, 13), pa.int64()),
        **dict.fromkeys((4, 5), pa.float64()),
        **dict.fromkeys((7, 12), pa.timestamp("us")),
        10: pa.date32(),
        11: pa.duration("us"),
    }
)
"""By the number of the type in the protocol; every other is text."""


def arrow_type(column: Sequence[Any]) -> pa.DataType:
    """Of a column as a cursor describes it: name, type, …, scale."""
    number, scale = column[1], column[5]
    if number in DECIMALS:
        return pa.float64() if scale else pa.decimal128(38, 0)
    return ARROW.get(number, pa.string())
