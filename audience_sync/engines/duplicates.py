"""Rows of a read with the same ``user_id``: looked for only when the counts do not add up."""

from __future__ import annotations

from collections.abc import Mapping

from audience_sync.engines.refusals import USABLE
from audience_sync.engines.session import Session
from audience_sync.errors import SourceRefused


def having(value: str | None) -> str:
    """A further condition: a good row has a ``value``, where there is one."""
    return f" AND (refusal > 0 OR {value} IS NOT NULL)" if value else ""


def have_values_and_none(session: Session, value: str) -> bool:
    """Whether some user has a row with a value and another without: the counts show nothing of
    that, since rows without are left out. ``value``: SQL over ``incoming``."""
    without = f"SELECT user_id FROM incoming WHERE refusal = 0 AND {value} IS NULL"
    (rows,) = session.row(f"SELECT count(*) FROM accepted SEMI JOIN ({without}) USING (user_id)")
    return rows > 0


def check_one_value_each(session: Session, value: str) -> None:
    """Raises SourceRefused when two rows of one user have different values; none is one too."""
    (users,) = session.row(
        "SELECT count(*) FROM (SELECT user_id FROM incoming WHERE refusal = 0 GROUP BY user_id "
        f"HAVING count(DISTINCT {value}) + CAST(bool_or({value} IS NULL) AS INT) > 1)"
    )
    if users:
        raise SourceRefused(
            f"the query gives different values for the same user_id (users: {users:,})",
            hint="give one row for each user: … GROUP BY user_id",
        )


def keep_one_each(session: Session, values: Mapping[str, str], value: str | None) -> int:
    """Of rows with the same ``user_id`` keep a good one, then the smallest by columns in order
    of their names, whatever order the query gives them in; how many good rows went.

    A row without a ``value``, where there is one, stands for nobody: not for a user either whose
    other row was refused, and who is kept for that.
    """
    (before,) = session.row("SELECT count(*) FROM accepted")
    order = "".join(f", {values[name]} NULLS LAST" for name in sorted(values))
    session.run(
        "CREATE OR REPLACE TEMP TABLE incoming AS "
        f"SELECT * FROM incoming WHERE {USABLE}{having(value)} "
        f"QUALIFY row_number() OVER (PARTITION BY user_id ORDER BY refusal > 0{order}) = 1"
    )
    (after,) = session.row("SELECT count(*) FROM accepted")
    return before - after
