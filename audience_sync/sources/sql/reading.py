"""What runs in the process that reads one query; ``sources.sql.process`` starts it.

It is given a ``Request`` as a line on its standard input, and answers on its standard output: an
empty line once the columns are known, an Arrow IPC stream, and an ``Ending`` as a line. An ending
in place of the empty line says why there are no columns.

Everything in here may hang, crash or print: whoever started the process ends it.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb
from typing import BinaryIO

import pyarrow as pa

from audience_sync.errors import SourceFailed
from audience_sync.sources.freshness import check_fresh, newest_of
from audience_sync.sources.sql.database import Database, opened
from audience_sync.sources.sql.process import BEGUN
from audience_sync.sources.sql.request import Ending, Request


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # who started this process decides when it ends
    out = _own_output()
    request = Request.of_line(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Rows are tuples of text, in which the collector would look for cycles again and again.
    gc.disable()
    try:
        ending = _ending(request, out)
        out.write(ending.to_line())
        out.flush()
    except BrokenPipeError:
        pass  # nobody is there to be told
    # At once: a driver's threads, or a connection that does not close, may not hold it up.
    os._exit(0)


def _own_output() -> BinaryIO:
    """Standard output for us alone; what a driver prints goes nowhere."""
    out = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    return out


def _end_with_parent() -> None:
    """Standard input ends with the process that has its other end, however it ended."""
    sys.stdin.buffer.read()
    os._exit(1)


def _ending(request: Request, out: BinaryIO) -> Ending:
    try:
        return Ending(rows=_answer(request, out))
    except BrokenPipeError:
        raise
    except SourceFailed as error:
        return Ending.of_error(error)
    except Exception as error:
        frame = extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
        return Ending(
            fault=f"the read failed in audience-sync ({place})", hint="please report this"
        )


def _answer(request: Request, out: BinaryIO) -> int:
    """Raises SourceFailed, SourceRefused."""
    rows = 0
    with opened(request) as database:
        _check_fresh(database, request)
        schema, batches = database.rows(request.query, request.cycle_time)
        out.write(BEGUN)
        with pa.ipc.new_stream(out, schema) as stream:
            for batch in batches:
                stream.write_batch(batch)
                out.flush()
                rows += batch.num_rows
    return rows


def _check_fresh(database: Database, request: Request) -> None:
    freshness = request.freshness
    if freshness is None or freshness.query is None:
        return
    query, cycle_time = freshness.query, request.cycle_time

    @contextmanager
    def read() -> Iterator[pa.RecordBatchReader]:
        schema, batches = database.rows(query, cycle_time)
        yield pa.RecordBatchReader.from_batches(schema, batches)

    check_fresh(newest_of(read), cycle_time, freshness.max_age)
