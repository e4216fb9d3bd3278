"""The members of a stored membership, sorted: set by set, in DuckDB where there is work to do."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import duckdb
import pyarrow as pa

from audience_sync.engines.columns import members_schema, renamed
from audience_sync.engines.previous import previous_view
from audience_sync.engines.session import Session, own_errors
from audience_sync.errors import StoreFailed
from audience_sync.pipeline.ports.reading import Membership


class DuckDBMembers:
    """``connect`` gives a new session of the process's one instance."""

    def __init__(self, connect: Callable[[], duckdb.DuckDBPyConnection]) -> None:
        self._connect = connect

    def read(self, membership: Membership) -> Generator[pa.RecordBatch]:
        """*members*, streamed.

        Raises:
            StoreFailed: they are not as many as the snapshot says. Those were given by then.
        """
        count = 0
        for batch in self._laid_together(membership) if membership.changes else membership.base():
            count += batch.num_rows
            yield batch
        if count != membership.members:
            raise StoreFailed(
                "the stored members do not add up", hint="restore the store from a backup"
            )

    def _laid_together(self, membership: Membership) -> Iterator[pa.RecordBatch]:
        con = self._connect()
        try:
            session = Session(con)
            with own_errors(duckdb.Error), previous_view(session, membership):
                yield from session.stream(
                    f"SELECT user_id{renamed('p', membership.columns, '')} FROM previous "
                    "ORDER BY user_id",
                    members_schema(membership.columns),
                )
        finally:
            con.close()
