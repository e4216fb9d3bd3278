"""Compare a source's rows with the previous membership, set by set, in DuckDB.

Inside a session columns go by position (``c0`` read now, ``p0`` previous), as DuckDB takes names
without regard to case. Tables: ``incoming`` (every row read, with its refusal code), ``accepted``
(a view: good rows, in agreed types), ``compared`` (members that changed or are kept as they were).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from audience_sync.domain.audience import Columns, ColumnType
from audience_sync.domain.guard import Counts
from audience_sync.engines.columns import (
    SQL_TYPE,
    Carried,
    carried_columns,
    changes_schema,
    fits,
    keeps_type,
    members_schema,
    quoted,
)
from audience_sync.engines.refusals import USABLE_FROM, reason, refusal
from audience_sync.errors import AudienceSyncError, SourceFailed
from audience_sync.pipeline.ports import Batches, Membership, Refused

CHUNK_ROWS = 65_536

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
        self, previous: Membership | None, rows: pa.RecordBatchReader, *, reserved: str
    ) -> Iterator[DuckDBComparison]:
        con = self._connect()
        try:
            with _own_errors():
                comparison = _compare(_Session(con), previous, rows, reserved)
            yield comparison
        finally:
            con.close()


@dataclass(frozen=True, slots=True)
class DuckDBComparison:
    """See ``pipeline.ports.Comparison``. Scans read the session's tables."""

    session: _Session
    before: Columns
    columns: Columns
    counts: Counts
    refused: Refused
    digest: str

    def changes(self) -> Batches:
        names = _renamed("p", self.before, "before.") + _renamed("c", self.columns, "after.")
        select = ", ".join(["user_id", '"before"', '"after"', *names])
        schema = changes_schema(self.before, self.columns)
        return self.session.stream(
            f"SELECT {select} FROM compared WHERE changed ORDER BY user_id", schema
        )

    def members(self) -> Batches:
        columns = _positions("c", self.columns)
        select = ", ".join(["user_id", *_renamed("c", self.columns, "")])
        return self.session.stream(
            f"SELECT {select} FROM (SELECT {columns} FROM accepted UNION ALL "
            f"SELECT {columns} FROM compared WHERE kept) ORDER BY user_id",
            members_schema(self.columns),
        )


class _Session:
    """One DuckDB session; every statement is finished before the next (DuckDB 2.0)."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con
        self.run("SET TimeZone = 'UTC'")

    def run(self, sql: str) -> None:
        self._con.execute(sql).fetchall()

    def row(self, sql: str) -> tuple[int, ...]:
        return tuple(int(value or 0) for value in self._con.execute(sql).fetchall()[0])

    def rows(self, sql: str) -> list[tuple[int, ...]]:
        return list(self._con.execute(sql).fetchall())

    @contextmanager
    def registered(self, name: str, batches: Batches, schema: pa.Schema) -> Iterator[None]:
        """``batches`` as a table that can be scanned once. Their own exception comes back."""
        kept: list[BaseException] = []

        def guarded() -> Iterator[pa.RecordBatch]:
            try:
                yield from batches
            except BaseException as error:
                kept.append(error)
                raise

        self._con.register(name, pa.RecordBatchReader.from_batches(schema, guarded()))
        try:
            yield
        except duckdb.Error as error:
            # DuckDB wraps what the reader raised, traceback and text included.
            if kept and isinstance(kept[0], Exception):
                raise kept[0] from None
            raise error from None
        finally:
            self._con.unregister(name)

    def stream(self, sql: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        with _own_errors():
            for batch in self._con.sql(sql).to_arrow_reader(CHUNK_ROWS):
                for start in range(0, batch.num_rows, CHUNK_ROWS):
                    yield batch.slice(start, CHUNK_ROWS).cast(schema)


@contextmanager
def _own_errors() -> Iterator[None]:
    """DuckDB's texts can hold rows; only their class is told."""
    try:
        yield
    except AudienceSyncError:
        raise
    except duckdb.OutOfMemoryException:
        raise SourceFailed(
            "the comparison does not fit in memory and spill space",
            hint="raise [engine] memory_limit, or give [engine] spill a larger disk",
        ) from None
    except duckdb.Error as error:
        raise SourceFailed(f"the comparison failed in DuckDB ({type(error).__name__})") from None


def _compare(
    session: _Session, previous: Membership | None, rows: pa.RecordBatchReader, reserved: str
) -> DuckDBComparison:
    refused, carried = _load(session, rows, reserved)
    before = previous.columns if previous else {}
    columns = _agree(session, before, carried)
    _accepted(session, carried, columns)
    border = previous is not None and columns != before
    counts = _count(session, previous, columns, border=border)
    if counts is None:
        duplicates = _keep_one_each(session, len(carried))
        refused = Refused(rows=refused.rows, by_reason=refused.by_reason, duplicates=duplicates)
        counts = _count(session, previous, columns, border=border)
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


def _load(
    session: _Session, rows: pa.RecordBatchReader, reserved: str
) -> tuple[Refused, list[Carried]]:
    """Read everything into ``incoming``; a reader that fails leaves nothing to compare."""
    id_column, carried = carried_columns(rows.schema, reserved=reserved)
    values = "".join(
        f", {column.value} AS c{i}, {column.unusable or 'false'} AS u{i}"
        for i, column in enumerate(carried)
    )
    with session.registered("source_rows", rows, rows.schema):
        session.run(
            f"CREATE TEMP TABLE incoming AS SELECT user_id{_list('c', len(carried))}, "
            f"{refusal(carried)} AS refusal FROM "
            f"(SELECT CAST({quoted(id_column)} AS VARCHAR) AS user_id{values} FROM source_rows)"
        )
    found = session.rows("SELECT refusal, count(*) FROM incoming GROUP BY refusal ORDER BY refusal")
    by_reason = {reason(code, carried): count for code, count in found if code}
    return Refused(rows=sum(count for _, count in found), by_reason=by_reason), carried


def _agree(session: _Session, before: Columns, carried: Sequence[Carried]) -> Columns:
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
    return {name: agreed[name] for name in before} if agreed == before else agreed


def _accepted(session: _Session, carried: Sequence[Carried], columns: Columns) -> None:
    read_at = {column.name: i for i, column in enumerate(carried)}
    casts = "".join(
        f", CAST(c{read_at[name]} AS {SQL_TYPE[type_]}) AS c{i}"
        for i, (name, type_) in enumerate(columns.items())
    )
    session.run(
        f"CREATE TEMP VIEW usable AS SELECT user_id, refusal > 0 AS bad"
        f"{casts.replace('CAST', 'TRY_CAST')} FROM incoming "
        f"WHERE refusal = 0 OR refusal >= {USABLE_FROM}"
    )
    session.run(
        f"CREATE TEMP VIEW accepted AS SELECT user_id{casts} FROM incoming WHERE refusal = 0"
    )


def _count(
    session: _Session, previous: Membership | None, columns: Columns, *, border: bool
) -> Counts | None:
    """Make ``compared`` and count; ``None`` when some ``user_id`` was read more than once.

    Duplicates show in the count: a ``GROUP BY user_id`` over all would cost more than the join.
    """
    if previous is None:
        session.run(FIRST_COMPARISON)
    else:
        with _previous(session, previous):
            session.run(_comparison_sql(previous.columns, columns, border=border))
    (accepted,) = session.row("SELECT count(*) FROM accepted")
    entered, exited, updated, kept, found, users = session.row(
        'SELECT count(*) FILTER (WHERE NOT "before"), count(*) FILTER (WHERE NOT "after"), '
        'count(*) FILTER (WHERE "before" AND "after" AND changed), count(*) FILTER (WHERE kept), '
        "count(*), count(DISTINCT user_id) FROM compared"
    )
    before = previous.members if previous else 0
    members = before + entered - exited
    if found != users or accepted + kept != members:
        return None
    return Counts(previous=before, entered=entered, exited=exited, updated=updated, members=members)


@contextmanager
def _previous(session: _Session, membership: Membership) -> Iterator[None]:
    """``previous``: the base, with the changes since laid over it. One scan."""
    columns = _renamed("p", membership.columns, "", source=True)
    session.run("DROP TABLE IF EXISTS net")
    _lay_together(session, membership)
    base = members_schema(membership.columns)
    with session.registered("base", membership.base(), base):
        names = _positions("p", membership.columns)
        session.run(
            "CREATE OR REPLACE TEMP VIEW previous AS "
            f"SELECT {', '.join(['user_id', *columns])} FROM base "
            "ANTI JOIN net USING (user_id) "
            f'UNION ALL SELECT {names} FROM net WHERE "after"'
        )
        yield


def _lay_together(session: _Session, membership: Membership) -> None:
    """``net``: for everyone who changed since the base, the last of the changes."""
    columns = "".join(f", p{i} {SQL_TYPE[t]}" for i, t in enumerate(membership.columns.values()))
    session.run(f'CREATE TEMP TABLE net (user_id VARCHAR, "after" BOOLEAN{columns}, step INTEGER)')
    after = ", ".join(
        ["user_id", '"after"', *(quoted(f"after.{name}") for name in membership.columns)]
    )
    for step, changes in enumerate(membership.changes):
        schema = changes_schema(membership.columns, membership.columns)
        with session.registered("step_changes", changes(), schema):
            session.run(f"INSERT INTO net SELECT {after}, {step} FROM step_changes")
    if len(membership.changes) > 1:
        session.run(
            "CREATE OR REPLACE TEMP TABLE net AS "
            "SELECT DISTINCT ON (user_id) * FROM net ORDER BY user_id, step DESC"
        )


def _comparison_sql(before: Columns, after: Columns, *, border: bool) -> str:
    """``compared``: who entered, exited, was updated, or is kept because the row was refused.

    ``border``: the set or the types of the columns changed; then every member's row is stored
    anew, so that each snapshot has the columns of its own time.
    """
    positions = {name: i for i, name in enumerate(before)}
    kept = [
        f"CASE WHEN u.bad THEN {_as_was(positions.get(name), type_)} ELSE u.c{i} END AS c{i}"
        for i, (name, type_) in enumerate(after.items())
    ]
    differs = " OR ".join(f"p{i} IS DISTINCT FROM c{i}" for i in range(len(after))) or "false"
    distinct = "true" if border else differs
    columns = "".join(f", p.p{i}" for i in range(len(before))) + "".join(f", {k}" for k in kept)
    return (
        "CREATE OR REPLACE TEMP TABLE compared AS SELECT *, "
        f'NOT ("before" AND "after") OR {distinct} AS changed FROM ('
        "SELECT coalesce(p.user_id, u.user_id) AS user_id, "
        'p.user_id IS NOT NULL AS "before", u.user_id IS NOT NULL AS "after", '
        f"coalesce(u.bad, false) AS kept{columns} "
        "FROM previous p FULL OUTER JOIN usable u ON p.user_id = u.user_id "
        "WHERE p.user_id IS NOT NULL OR NOT u.bad) "
        f'WHERE kept OR NOT ("before" AND "after") OR {distinct}'
    )


def _as_was(position: int | None, type_: ColumnType) -> str:
    return "NULL" if position is None else f"TRY_CAST(p.p{position} AS {SQL_TYPE[type_]})"


def _keep_one_each(session: _Session, columns: int) -> int:
    """Of rows with the same ``user_id`` keep a good one, then the smallest; how many went.

    Rows without a usable id are no duplicates of each other, and stay to be counted.
    """
    unusable = f"refusal BETWEEN 1 AND {USABLE_FROM - 1}"
    (before,) = session.row(f"SELECT count(*) FROM incoming WHERE NOT {unusable}")
    order = "".join(f", c{i} NULLS LAST" for i in range(columns))
    session.run(
        "CREATE OR REPLACE TEMP TABLE incoming AS "
        f"SELECT DISTINCT ON (user_id) * FROM incoming WHERE NOT {unusable} "
        f"ORDER BY user_id, refusal{order}"
    )
    (after,) = session.row("SELECT count(*) FROM incoming")
    return before - after


def _digest(session: _Session, before: Columns, columns: Columns) -> str:
    """A sum of row hashes does not depend on the order of rows; a user is in it once."""
    sides = '"before", "after"' + _list("p", len(before)) + _list("c", len(columns))
    count, total = session.row(
        f"SELECT count(*), sum(hash(user_id, {sides})::HUGEINT) FROM compared WHERE changed"
    )
    text = f"{dict(before)}|{dict(columns)}|{count}|{total}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _positions(letter: str, columns: Columns) -> str:
    return "user_id" + _list(letter, len(columns))


def _list(letter: str, count: int) -> str:
    return "".join(f", {letter}{i}" for i in range(count))


def _renamed(letter: str, columns: Columns, prefix: str, *, source: bool = False) -> list[str]:
    pairs = [(f"{letter}{i}", quoted(prefix + name)) for i, name in enumerate(columns)]
    return [f"{b} AS {a}" if source else f"{a} AS {b}" for a, b in pairs]
