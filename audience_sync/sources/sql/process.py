"""A process that reads one query, and that is ended when its time is over."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

import pyarrow as pa

from audience_sync.errors import SourceFailed
from audience_sync.sources.freshness import spoken
from audience_sync.sources.sql.request import Ending, Request

PROGRAM = """
import sys
sys.path = sys.argv[1:]
from audience_sync.sources.sql.reading import main
main()
"""
"""Modules are looked for where this process looks, whatever lies in the working directory."""

BEGUN = b"\n"
"""What the process writes before the rows."""

LINGERING = 5.0
"""Seconds that a process may need to end after it has closed its output."""


class Answer:
    """What a reading process says. Its deadline is over with its last word.

    A driver that hangs, in its own code or in looking up a host, cannot be stopped inside our own
    process without leaving a thread behind; a process can.
    """

    def __init__(self, process: subprocess.Popen[bytes], request: Request, name: str) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._request = request
        self._name = name
        self._said: BinaryIO = process.stdout  # type: ignore[assignment]  # buffered
        self._asked: BinaryIO = process.stdin  # type: ignore[assignment]
        self._expired = False
        self._timer = threading.Timer(request.timeout.total_seconds(), self._expire)
        self._timer.daemon = True
        self._timer.start()

    def rows(self) -> pa.RecordBatchReader:
        """Single-scan; ends without an error only after the last row.

        Raises:
            SourceFailed, SourceRefused: also from the reader's iteration.
        """
        with self._whole():
            self._asked.write(self._request.to_line())
            self._asked.flush()
            first = self._said.readline()
            if first != BEGUN:
                raise self._error(Ending.of_line(first))
            stream = pa.ipc.open_stream(self._said)
        return pa.RecordBatchReader.from_batches(stream.schema, self._batches(stream))

    def end(self) -> None:
        """The process and the timer are gone afterwards."""
        self._timer.cancel()
        self._timer.join()
        self._process.kill()
        for pipe in (self._asked, self._said):
            with suppress(OSError):  # it may hold something that nobody takes any more
                pipe.close()
        self._process.wait()

    def _batches(self, stream: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        rows = 0
        while True:
            with self._whole():
                try:
                    batch = stream.read_next_batch()
                except StopIteration:
                    break
            rows += batch.num_rows
            yield batch
        with self._whole():
            ending = Ending.of_line(self._said.readline())
        if ending is None or ending.fault is not None or ending.rows != rows:
            raise self._error(ending)
        self._timer.cancel()

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """What is cut off in the middle was cut off by the end of the process."""
        try:
            yield
        except (pa.ArrowException, OSError, EOFError):
            raise self._error(None) from None

    def _error(self, ending: Ending | None) -> SourceFailed:
        if self._expired:
            ending = Ending(
                fault=f"it was not read within {spoken(self._request.timeout)} (timeout)",
                hint="raise timeout, or make the query quicker; the next run tries again",
            )
        elif ending is None or ending.fault is None:
            ending = Ending(
                fault=f"the process that reads ended {self._end_of_process()} before the last row",
                hint="was memory short? the next run tries again",
            )
        return ending.error(f"source {self._name}")

    def _end_of_process(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LINGERING)
        code = self._process.poll()
        if code is None:
            return "its answer"
        return f"by signal {-code}" if code < 0 else f"with code {code}"

    def _expire(self) -> None:
        self._expired = True
        self._process.kill()


@contextmanager
def reading(request: Request, name: str) -> Iterator[Answer]:
    """Starts a process for ``request``; whatever it does, it is gone afterwards.

    Args:
        name: of the source, for messages.

    Raises:
        SourceFailed: none can be started.
    """
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a driver's own words may hold anything
            start_new_session=True,  # Ctrl-C is for the program, which then ends it
        )
    except OSError as error:
        words = error.strerror or type(error).__name__
        raise SourceFailed(f"a process to read it cannot be started ({words})") from None
    answer = Answer(process, request, name)
    try:
        yield answer
    finally:
        answer.end()
