"""Memberships in plain Python: a model that says what an engine must find."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa

from audience_sync.domain.audience import Columns, ColumnType
from audience_sync.pipeline.ports.reading import Comparison, Membership

Members = Mapping[str, Mapping[str, Any]]
"""The carried columns of each member, by ``user_id``."""

ARROW = {
    ColumnType.STRING: pa.string(),
    ColumnType.BOOL: pa.bool_(),
    ColumnType.INT64: pa.int64(),
    ColumnType.FLOAT64: pa.float64(),
}


@dataclass(frozen=True, slots=True)
class Change:
    """What a comparison finds for one user; ``None``: was, or is, no member."""

    user_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def by_bytes(user_ids: Iterable[str]) -> list[str]:
    return sorted(user_ids, key=str.encode)


def differences(before: Members, after: Members) -> list[Change]:
    return [
        Change(user, _copy(before.get(user)), _copy(after.get(user)))
        for user in by_bytes({*before, *after})
        if before.get(user) != after.get(user)
    ]


def table(members: Members, columns: Columns) -> pa.Table:
    """*members*, as the store would hold them."""
    schema = pa.schema([("user_id", pa.string()), *((n, ARROW[t]) for n, t in columns.items())])
    rows = [{"user_id": user, **members[user]} for user in by_bytes(members)]
    return pa.Table.from_pylist(rows, schema=schema)


def changes_table(before: Members, after: Members, columns: Columns) -> pa.Table:
    """*changes*, as the store would hold them."""
    fields = [("user_id", pa.string()), ("before", pa.bool_()), ("after", pa.bool_())]
    for side in ("before", "after"):
        fields += [(f"{side}.{name}", ARROW[type_]) for name, type_ in columns.items()]
    rows = [
        {
            "user_id": change.user_id,
            "before": change.before is not None,
            "after": change.after is not None,
            **_side("before", change.before),
            **_side("after", change.after),
        }
        for change in differences(before, after)
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def stored(history: Sequence[Members], columns: Columns, chunk_rows: int = 3) -> Membership:
    """A base, and a set of changes for each later state; in small chunks."""
    steps = [changes_table(before, after, columns) for before, after in pairwise(history)]
    base = table(history[0], columns)
    return Membership(
        columns=columns,
        members=len(history[-1]),
        base=lambda: base.to_batches(chunk_rows),
        changes=[lambda step=step: step.to_batches(chunk_rows) for step in steps],
    )


def found_changes(comparison: Comparison) -> list[Change]:
    return [
        Change(row["user_id"], _part("before", row), _part("after", row))
        for batch in comparison.changes()
        for row in batch.to_pylist()
    ]


def found_members(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """In the order of the comparison."""
    rows = [row for batch in comparison.members() for row in batch.to_pylist()]
    members = {row.pop("user_id"): row for row in rows}
    assert len(members) == len(rows)
    return members


def _copy(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if row is None else dict(row)


def _side(side: str, row: dict[str, Any] | None) -> dict[str, Any]:
    return {f"{side}.{name}": value for name, value in (row or {}).items()}


def _part(side: str, row: dict[str, Any]) -> dict[str, Any] | None:
    if not row[side]:
        return None
    prefix = f"{side}."
    return {name[len(prefix) :]: v for name, v in row.items() if name.startswith(prefix)}
