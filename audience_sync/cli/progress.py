"""Progress of deliveries: bars on a terminal, else one log line a minute."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audience_sync.domain.span import Span


class Progress:
    """Shows spans as they advance; called from the delivering threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: dict[int, Any] = {}
        from audience_sync.scheduler.progress import MinuteLines

        self._lines = MinuteLines()
        self._bars: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            self._bars = _bars()
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, span: Span) -> None:
        with self._lock:
            if self._bars is not None:
                self._bar(span)
            else:
                self._lines.show(span)

    def _bar(self, span: Span) -> None:
        if span.id not in self._tasks:
            name = f"{span.audience} → {span.destination}"
            self._tasks[span.id] = self._bars.add_task(name, total=span.books.total)
        self._bars.update(self._tasks[span.id], completed=span.books.handled)


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    class Rate(TextColumn):
        def render(self, task: Any) -> Any:
            return super().render(task) if task.speed is None else f"{task.speed:,.0f}/s"

    return Bars(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        Rate(""),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
