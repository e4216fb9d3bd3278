"""From Arrow rows of *members* and *changes* to ``Change`` objects, for delivery and display."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from audience_sync.domain.change import Change

ROWS_AT_A_TIME = 2_048
"""Rows of a batch that are Python objects at once."""


def entered(batch: pa.RecordBatch) -> Iterator[Change]:
    """Each of *members* as one who entered."""
    names = batch.schema.names[1:]
    for user_id, *values in _rows(batch):
        yield Change(user_id=user_id, before=None, after=dict(zip(names, values, strict=True)))


def changed(batch: pa.RecordBatch) -> Iterator[Change]:
    """Each of *changes*."""
    names = batch.schema.names[3:]
    before = [n.removeprefix("before.") for n in names if n.startswith("before.")]
    after = [n.removeprefix("after.") for n in names if n.startswith("after.")]
    for user_id, was, now, *values in _rows(batch):
        yield Change(
            user_id=user_id,
            before=dict(zip(before, values, strict=False)) if was else None,
            after=dict(zip(after, values[len(before) :], strict=True)) if now else None,
        )


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    for start in range(0, batch.num_rows, ROWS_AT_A_TIME):
        columns = batch.slice(start, ROWS_AT_A_TIME).columns
        yield from zip(*(column.to_pylist() for column in columns), strict=True)
