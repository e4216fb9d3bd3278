"""A source without rows: what a retired audience is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime

import pyarrow as pa

from audience_sync.domain.audience import Columns, ColumnType

ARROW_TYPE = {
    ColumnType.STRING: pa.string(),
    ColumnType.BOOL: pa.bool_(),
    ColumnType.INT64: pa.int64(),
    ColumnType.FLOAT64: pa.float64(),
}


class Nobody:
    """A ``Source`` whose every query gives no row of ``columns``."""

    def __init__(self, columns: Columns) -> None:
        fields = [pa.field(name, ARROW_TYPE[type_]) for name, type_ in columns.items()]
        self._schema = pa.schema([pa.field("user_id", pa.string()), *fields])

    @contextmanager
    def read(self, query: str, cycle_time: datetime) -> Iterator[pa.RecordBatchReader]:
        with closing(pa.RecordBatchReader.from_batches(self._schema, [])) as rows:
            yield rows
