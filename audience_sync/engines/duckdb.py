"""Compare a source's rows with the previous membership, set by set, in DuckDB.

Inside a session columns go by position (``c0`` read now, ``p0`` previous), as DuckDB takes names
without regard to case. Tables: ``incoming`` (every row read, with its refusal code), ``accepted``
(a view: good rows, in agreed types), ``compared`` (members that changed or are kept as they were).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import duckdb
import pyarrow as pa

from audience_sync.domain.audience import VALUE, Columns, ColumnType, Kind
from audience_sync.domain.forgotten import Forgotten
from audience_sync.domain.guard import Counts
from audience_sync.engines.columns import (
    SQL_TYPE,
    Carried,
    changes_schema,
    fits,
    keeps_type,
    members_schema,
    numbered,
    renamed,
)
from audience_sync.engines.duplicates import (
    check_one_value_each,
    have_values_and_none,
    having,
    keep_one_each,
)
from audience_sync.engines.incoming import load
from audience_sync.engines.previous import previous_view
from audience_sync.engines.refusals import USABLE
from audience_sync.engines.session import Session, own_errors
from audience_sync.errors import SourceFailed
from audience_sync.pipeline.ports.reading import Batches, Membership, Refused

FIRST_COMPARISON = (
    'CREATE OR REPLACE TEMP VIEW compared AS SELECT *, false AS "before", true AS "after", '
    "false AS kept, true AS changed FROM accepted"
)


class DuckDBEngine:
    """An ``Engine``. ``connect`` gives a new session of the process's one instance."""

    def __init__(self, connect: Callable[[], duckdb.DuckDBPyConnection]) -> None:
        self._connect = connect

    @contextmanager
    def compare(
        self,
        previous: Membership | None,
        rows: pa.RecordBatchReader,
        *,
        reserved: str,
        kind: Kind = Kind.AUDIENCE,
        forgotten: Forgotten | None = None,
    ) -> Iterator[DuckDBComparison]:
        con = self._connect()
        try:
            with own_errors(duckdb.Error):
                comparison = _compare(Session(con), previous, rows, reserved, kind, forgotten)
            yield comparison
        finally:
            con.close()


@dataclass(frozen=True, slots=True)
class DuckDBComparison:
    """See ``pipeline.ports.Comparison``. Scans read the session's tables, one at a time."""

    session: Session
    before: Columns
    columns: Columns
    counts: Counts
    refused: Refused
    digest: str

    def changes(self) -> Batches:
        names = renamed("p", self.before, "before.") + renamed("c", self.columns, "after.")
        return self.session.stream(
            f'SELECT user_id, "before", "after"{names} FROM compared '
            "WHERE changed ORDER BY user_id",
            changes_schema(self.before, self.columns),
        )

    def members(self) -> Batches:
        columns = numbered("c", len(self.columns))
        return self.session.stream(
            f"SELECT user_id{renamed('c', self.columns, '')} FROM "
            f"(SELECT user_id{columns} FROM accepted UNION ALL "
            f"SELECT user_id{columns} FROM compared WHERE kept) ORDER BY user_id",
            members_schema(self.columns),
        )


def _compare(
    session: Session,
    previous: Membership | None,
    rows: pa.RecordBatchReader,
    reserved: str,
    kind: Kind,
    forgotten: Forgotten | None,
) -> DuckDBComparison:
    refused, carried = load(session, rows, reserved, kind, forgotten)
    before = previous.columns if previous else {}
    # A membership of nobody says nothing of types: nulls were all there was to see.
    columns = _agree(session, before if previous and previous.members else {}, carried)
    values = _values(carried, columns)
    value = values[VALUE] if kind is Kind.COMPUTED_TRAIT else None
    _accepted(session, values, value)
    counts = _count(session, previous, columns)
    if value and (counts is None or have_values_and_none(session, value)):
        check_one_value_each(session, value)
    if counts is None:
        refused = replace(refused, duplicates=keep_one_each(session, values, value))
        counts = _count(session, previous, columns, exactly=True)
    if counts is None:
        raise SourceFailed("the stored membership does not add up", hint="please report this")
    return DuckDBComparison(
        session=session,
        before=before,
        columns=columns,
        counts=counts,
        refused=refused,
        digest=_digest(session, before, columns),
    )


def _agree(session: Session, before: Columns, carried: Sequence[Carried]) -> Columns:
    """The type of each column: the stored one wherever today's values fit it."""
    agreed: dict[str, ColumnType] = {}
    for i, column in enumerate(carried):
        was = before.get(column.name, column.type)
        keeps = keeps_type(was, column.type)
        if keeps is None:
            misfits = f"count(*) FILTER (WHERE NOT {fits(f'c{i}', was, column.type)})"
            keeps = session.row(f"SELECT {misfits} FROM incoming WHERE refusal = 0") == (0,)
        agreed[column.name] = was if keeps else column.type
    # The stored order, when only the order of the query's columns changed.
    return before if agreed == before else agreed


def _values(carried: Sequence[Carried], columns: Columns) -> Mapping[str, str]:
    """By column, SQL over ``incoming``: the value in its agreed type (refused rows may not fit)."""
    read_at = {column.name: i for i, column in enumerate(carried)}
    return {
        name: f"TRY_CAST(c{read_at[name]} AS {SQL_TYPE[type_]})" for name, type_ in columns.items()
    }


def _accepted(session: Session, values: Mapping[str, str], value: str | None) -> None:
    """``usable`` and ``accepted``. Where there is a ``value``, one without it is no member."""
    columns = "".join(f", {sql} AS c{i}" for i, sql in enumerate(values.values()))
    session.run(
        f"CREATE TEMP VIEW usable AS SELECT user_id, refusal > 0 AS bad{columns} "
        f"FROM incoming WHERE {USABLE}{having(value)}"
    )
    session.run("CREATE TEMP VIEW accepted AS SELECT * EXCLUDE (bad) FROM usable WHERE NOT bad")


def _count(
    session: Session, previous: Membership | None, columns: Columns, *, exactly: bool = False
) -> Counts | None:
    """Make ``compared`` and count; ``None`` when some ``user_id`` was read more than once.

    Duplicates show in the count: a ``GROUP BY user_id`` over all would cost more than the join.

    Args:
        exactly: hashes of ids are quicker to tell apart, but two ids may have the same.
    """
    if previous is None:
        session.run(FIRST_COMPARISON)
    else:
        with previous_view(session, previous):
            session.run(_comparison_sql(previous.columns, columns))
    users = "user_id" if exactly else "hash(user_id)"
    (accepted,) = session.row("SELECT count(*) FROM accepted")
    entered, exited, updated, kept, found, distinct = session.row(
        'SELECT count(*) FILTER (WHERE NOT "before"), count(*) FILTER (WHERE NOT "after"), '
        'count(*) FILTER (WHERE "before" AND "after" AND changed), count(*) FILTER (WHERE kept), '
        f"count(*), count(DISTINCT {users}) FROM compared"
    )
    before = previous.members if previous else 0
    members = before + entered - exited
    if found != distinct or accepted + kept != members:
        return None
    return Counts(previous=before, entered=entered, exited=exited, updated=updated, members=members)


def _comparison_sql(before: Columns, after: Columns) -> str:
    """``compared``: who entered, exited, was updated, or is kept because the row was refused.

    When the columns or their types changed, every member's row is stored anew, so that each
    snapshot has the columns of its own time.
    """
    positions = {name: i for i, name in enumerate(before)}
    kept = "".join(
        f", CASE WHEN u.bad THEN {_as_was(positions.get(name), type_)} ELSE u.c{i} END AS c{i}"
        for i, (name, type_) in enumerate(after.items())
    )
    differs = " OR ".join(f"p{i} IS DISTINCT FROM c{i}" for i in range(len(after))) or "false"
    distinct = differs if before == after else "true"
    return (
        "CREATE OR REPLACE TEMP TABLE compared AS SELECT *, "
        f'NOT ("before" AND "after") OR {distinct} AS changed FROM ('
        "SELECT coalesce(p.user_id, u.user_id) AS user_id, "
        'p.user_id IS NOT NULL AS "before", u.user_id IS NOT NULL AS "after", '
        f"coalesce(u.bad, false) AS kept{numbered('p.p', len(before))}{kept} "
        "FROM previous p FULL OUTER JOIN usable u ON p.user_id = u.user_id "
        "WHERE p.user_id IS NOT NULL OR NOT u.bad) "
        f'WHERE kept OR NOT ("before" AND "after") OR {distinct}'
    )


def _as_was(position: int | None, type_: ColumnType) -> str:
    return "NULL" if position is None else f"TRY_CAST(p.p{position} AS {SQL_TYPE[type_]})"


def _digest(session: Session, before: Columns, columns: Columns) -> str:
    """A sum of row hashes does not depend on the order of rows; a user is in it once."""
    sides = '"before", "after"' + numbered("p", len(before)) + numbered("c", len(columns))
    count, total = session.row(
        f"SELECT count(*), sum(hash(user_id, {sides})) FROM compared WHERE changed"
    )
    text = f"{dict(before)}|{dict(columns)}|{count}|{total}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
