"""What a source gives, read whole into the session: the table ``incoming``."""

from __future__ import annotations

import pyarrow as pa

from audience_sync.domain.audience import Kind
from audience_sync.domain.forgotten import Forgotten
from audience_sync.engines.columns import Carried, carried_columns, numbered, quoted
from audience_sync.engines.refusals import but_forgotten, reason, refusal
from audience_sync.engines.session import Session
from audience_sync.pipeline.ports.reading import Refused


def load(
    session: Session,
    rows: pa.RecordBatchReader,
    reserved: str,
    kind: Kind,
    forgotten: Forgotten | None,
) -> tuple[Refused, list[Carried]]:
    """Read everything into ``incoming``; a reader that fails leaves nothing to compare.

    Raises:
        SourceRefused: columns that cannot be used.
    """
    id_column, carried = carried_columns(rows.schema, reserved=reserved, kind=kind)
    code = refusal(carried)
    if forgotten is not None:
        _remember(session, forgotten)
        code = but_forgotten(code, forgotten.salt)
    values = "".join(
        f", {column.value} AS c{i}, {column.unusable or 'false'} AS u{i}"
        for i, column in enumerate(carried)
    )
    with session.registered("source_rows", rows, rows.schema):
        session.run(
            f"CREATE TEMP TABLE incoming AS SELECT user_id{numbered('c', len(carried))}, "
            f"{code} AS refusal FROM "
            f"(SELECT CAST({quoted(id_column)} AS VARCHAR) AS user_id{values} FROM source_rows)"
        )
    found = session.rows(
        "SELECT refusal, count(*) FROM incoming GROUP BY refusal ORDER BY count(*) DESC, refusal"
    )
    by_reason = {reason(number, carried): count for number, count in found if number}
    return Refused(rows=sum(count for _, count in found), by_reason=by_reason), carried


def _remember(session: Session, forgotten: Forgotten) -> None:
    references = pa.table({"reference": pa.array(forgotten.references, pa.string())})
    with session.registered("references_given", references.to_batches(), references.schema):
        session.run("CREATE TEMP TABLE forgotten AS SELECT reference FROM references_given")
