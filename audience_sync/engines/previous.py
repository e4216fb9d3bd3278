"""The stored membership as one relation: the base, with the changes since laid over it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from audience_sync.engines.columns import (
    SQL_TYPE,
    changes_schema,
    members_schema,
    numbered,
    quoted,
)
from audience_sync.engines.session import Session
from audience_sync.pipeline.ports.reading import Membership


@contextmanager
def previous_view(session: Session, membership: Membership) -> Iterator[None]:
    """The view ``previous`` (``user_id``, ``p0``, ``p1``, …). It can be scanned once."""
    _lay_together(session, membership)
    schema = members_schema(membership.columns)
    with session.registered("base", membership.base(), schema):
        of_base = "".join(f", {quoted(n)} AS p{i}" for i, n in enumerate(membership.columns))
        columns = numbered("p", len(membership.columns))
        session.run(
            f"CREATE OR REPLACE TEMP VIEW previous AS SELECT user_id{of_base} FROM base "
            f"ANTI JOIN net USING (user_id) UNION ALL "
            f'SELECT user_id{columns} FROM net WHERE "after"'
        )
        yield


def _lay_together(session: Session, membership: Membership) -> None:
    """``net``: for everyone who changed since the base, the last of the changes."""
    columns = membership.columns
    declared = "".join(f", p{i} {SQL_TYPE[t]}" for i, t in enumerate(columns.values()))
    after = ", ".join(["user_id", '"after"', *(quoted(f"after.{name}") for name in columns)])
    schema = changes_schema(columns, columns)
    session.run(
        f'CREATE OR REPLACE TEMP TABLE net (user_id VARCHAR, "after" BOOLEAN{declared}, step INT)'
    )
    for step, changes in enumerate(membership.changes):
        with session.registered("step_changes", changes(), schema):
            session.run(f"INSERT INTO net SELECT {after}, {step} FROM step_changes")
    if len(membership.changes) > 1:
        session.run(
            "CREATE OR REPLACE TEMP TABLE net AS SELECT * FROM net "
            "QUALIFY row_number() OVER (PARTITION BY user_id ORDER BY step DESC) = 1"
        )
