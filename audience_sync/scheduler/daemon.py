"""The daemon: one process that captures and delivers until it is told to stop.

The main thread does nothing but wait: for signals, and for the next tick. Whatever may take long
happens in other threads, so a signal is always heard. That holds for its words too: a log that
nobody reads makes whoever writes it wait.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import structlog

from audience_sync.scheduler.generation import Generation
from audience_sync.scheduler.notify import Notify
from audience_sync.scheduler.pulse import Pulse
from audience_sync.scheduler.succession import RELOAD, Parts, Succession
from audience_sync.standing.facts import TICKS_WITHIN

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.config.load import Loaded
    from audience_sync.standing.counters import Counters

log = structlog.get_logger("audience_sync")

TICK = 1.0
"""Seconds between two ticks of the main thread."""

HEARD_WITHIN = 0.05
"""Seconds until the end of a stop is noticed."""

GRACE = 20.0
"""Seconds to finish what is in flight after a signal. A kill loses nothing either."""

CAPTURES_GRACE = 5.0
"""Seconds, of those, for a capture once nothing is sent any more: nobody outside has been told
anything of it."""

LAST_WORDS = 1.0
"""Seconds for the line that says what was cut off."""

RELOAD_SILENT = 3600.0
"""Seconds that a reload may take: it may have to migrate another store."""

EXIT_UNFINISHED = 0
"""Nothing is lost and the next start goes on, so nobody need be called."""


class EndNow(Exception):
    """The process must end without waiting for its threads.

    ``code``: what it ends with.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Daemon:
    """Listens to signals, and tells others how it is (``standing.facts.Facts``).

    Args:
        loaded: the configuration to begin with.
        heard: waits for so many seconds; the number of a signal that came, or ``None``.
    """

    def __init__(
        self,
        loaded: Loaded,
        parts: Parts,
        *,
        heard: Callable[[float], int | None],
        notify: Notify,
        pulse: Pulse,
    ) -> None:
        self._heard = heard
        self._notify = notify
        self._elapsed = parts.elapsed
        self._pulse = pulse
        self._silent: list[str] = []
        self._counters = parts.counters
        self._succession = Succession(loaded, parts, pulse, self)
        self._change: threading.Thread | None = None
        self._asked_again = False
        self._failure: BaseException | None = None
        self._ticked = parts.elapsed()

    @property
    def counters(self) -> Counters:
        return self._counters

    def app(self) -> App | None:
        """The program at work; ``None`` while it starts."""
        generation = self._succession.generation
        return generation.app if generation else None

    def ticked(self) -> bool:
        return self._elapsed() - self._ticked < TICKS_WITHIN

    def stuck(self) -> bool:
        return bool(self._silent)

    def run(self) -> int:
        """Work until a signal; the exit code.

        Raises:
            AudienceSyncError: it could not be started.
            EndNow: it is stopped, but not everything has ended.
        """
        self._begin("start", self._start)
        while True:
            caught = self._heard(TICK)
            if caught == signal.SIGHUP:
                self._reload()
            elif caught is not None:
                return self._drain()
            if self._failure is not None:
                self._succession.end(GRACE)
                raise self._failure
            self._tick()

    def _tick(self) -> None:
        self._ticked = self._elapsed()
        former, self._silent = self._silent, self._pulse.silent()
        if not self._silent:
            self._notify.alive()
        elif self._silent != former:
            say = partial(_say_stuck, self._silent)
            threading.Thread(target=say, name="stuck", daemon=True).start()
        generation = self._succession.generation
        if generation is None or self._is_changing():
            return
        self._notify.status(_status(generation, self._silent))
        changed = self._succession.secrets.changed()
        if changed or self._asked_again:
            self._reload(secret_changed=changed)
        elif self._succession.wants_again():
            self._begin(RELOAD, self._again)

    def _is_changing(self) -> bool:
        return self._change is not None and self._change.is_alive()

    def _begin(self, name: str, change: Callable[[], None]) -> None:
        def kept() -> None:
            if name == RELOAD:  # a start has whoever started us
                self._pulse.beat(RELOAD, RELOAD_SILENT)
            try:
                change()
            except BaseException as error:
                self._failure = error
            finally:
                self._pulse.end(RELOAD)

        self._change = threading.Thread(target=kept, name=name, daemon=True)
        self._change.start()

    def _start(self) -> None:
        self._succession.start()
        app = self.app()
        if app is None:
            return
        log.info(
            "started: this is the daemon, for one pass there is `audience-sync sync`",
            audiences=len(app.audiences),
            destinations=sorted(app.destinations),
        )
        if app.is_new:
            log.warning(
                "a new store was made: it knows of nobody who was told, so every member is told",
                store=str(app.database),
                hint="if there was one before, stop, and put it back",
            )
        self._notify.ready(f"{len(app.audiences)} audiences")

    def _reload(self, *, secret_changed: bool = False) -> None:
        """What is asked for during a start or a reload may be newer than what that has read."""
        self._asked_again = self._is_changing()
        if self._asked_again:
            return
        self._notify.reloading()
        self._begin(RELOAD, partial(self._replace, secret_changed))

    def _replace(self, secret_changed: bool) -> None:
        if secret_changed:
            log.info("a secret file has changed")
        self._succession.reload()
        self._again_at_work()

    def _again(self) -> None:
        self._notify.reloading()
        self._succession.reload_again()
        self._again_at_work()

    def _again_at_work(self) -> None:
        generation = self._succession.generation
        if generation is not None:
            self._notify.ready(_status(generation, []))

    def _drain(self) -> int:
        """Stop everything; a second signal ends it at once."""
        self._notify.stopping()
        end = threading.Thread(target=self._end, name="end", daemon=True)
        end.start()
        self._succession.stop()
        began, alone_since = self._elapsed(), None
        while end.is_alive():
            caught = self._heard(HEARD_WITHIN)
            if caught is not None and caught != signal.SIGHUP:
                raise EndNow(128 + caught)
            now = self._elapsed()
            if alone_since is None and self._succession.only_captures():
                alone_since = now
            alone = 0.0 if alone_since is None else now - alone_since
            if now - began > GRACE or alone > CAPTURES_GRACE:
                _say_unfinished(now - began)
                raise EndNow(EXIT_UNFINISHED)
        return 0

    def _end(self) -> None:
        log.info("stopping: finishing what is in flight; a second signal ends it at once")
        if self._change is not None:
            self._change.join()
        while not self._succession.end(GRACE):
            pass
        log.info("stopped")


def _say_stuck(threads: list[str]) -> None:
    log.error("stuck: who watches is told", threads=threads)


def _say_unfinished(seconds: float) -> None:
    def say() -> None:
        log.warning("still at work: ended; the next start goes on", seconds=round(seconds))

    last = threading.Thread(target=say, name="last words", daemon=True)
    last.start()
    last.join(LAST_WORDS)


def _status(generation: Generation, silent: list[str]) -> str:
    app = generation.app
    text = f"{len(app.audiences)} audiences, {len(app.destinations)} destinations"
    if generation.next_cycle is not None:
        text += f"; next capture {generation.next_cycle:%d %b %H:%M} UTC"
    return f"{text}; stuck: {', '.join(silent)}" if silent else text
