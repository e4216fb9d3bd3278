"""One generation after another: the start, and what a reload replaces."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import structlog

from audience_sync.errors import AudienceSyncError, ConfigError, StoreFailed
from audience_sync.scheduler.generation import Generation
from audience_sync.scheduler.patience import Patience
from audience_sync.scheduler.pulse import Pulse
from audience_sync.scheduler.report import OnceEach, error_said, problems
from audience_sync.scheduler.served import Served, Server
from audience_sync.scheduler.slot import Slot
from audience_sync.scheduler.watched import Watched
from audience_sync.store import migrate
from audience_sync.store.engine import Database

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.config.load import Loaded
    from audience_sync.standing.counters import Counters
    from audience_sync.standing.facts import Facts

log = structlog.get_logger("audience_sync")

DELIVERIES_END_WITHIN = 40.0
"""Seconds that a reload waits for requests in flight, each of which has a deadline."""

PATIENCE = 60.0
"""Seconds that a start waits for a store that cannot be reached; then who started us decides."""

TRY_AGAIN = 2.0
"""Seconds until a start, or a reload, asks a store again that was away."""

LONGEST_BETWEEN_TRIES = 30.0
"""Seconds, of a reload: each time it waits twice as long."""

RELOAD = "reload"


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What the daemon is made of.

    ``load``: reads the configuration as it is now; raises ConfigError. ``build``: wires the
    program; raises StoreFailed or ConfigError. ``serve``: the server that a configuration wants,
    not yet started. ``elapsed``: seconds of a clock that never goes back and goes on in suspend.
    """

    load: Callable[[], Loaded]
    build: Callable[[Loaded], App]
    serve: Callable[[Loaded, Facts], Server | None]
    clock: Callable[[], datetime]
    elapsed: Callable[[], float]
    counters: Counters


class Wanted(NamedTuple):
    """A configuration that was asked for, and its secret files as they were when it was read."""

    loaded: Loaded
    secrets: Watched


class Former(NamedTuple):
    """A generation that was replaced, and the thread that waits for its last capture."""

    generation: Generation
    closing: threading.Thread


class Succession:
    """The generation at work, and how the next one takes its place.

    Its methods may take long: none is for the main thread.
    """

    def __init__(self, loaded: Loaded, parts: Parts, pulse: Pulse, facts: Facts) -> None:
        self.loaded = loaded
        self.secrets = Watched(loaded.secret_files)
        """As they were when they were read, so one that changes during a reload is noticed."""
        self.generation: Generation | None = None
        self._parts = parts
        self._pulse = pulse
        self._slot = Slot()
        self._stopping = threading.Event()
        self._former: list[Former] = []
        self._served = Served(lambda loaded: parts.serve(loaded, facts))
        self._wanted: Wanted | None = None
        self._patience = Patience(parts.elapsed, first=TRY_AGAIN, longest=LONGEST_BETWEEN_TRIES)
        self._refusals = OnceEach()

    def start(self) -> None:
        """Raises AudienceSyncError: it cannot be started."""
        self._served.start(self.loaded)
        app = self._built_patiently()
        if app is not None:
            self._put_to_work(app)

    def reload(self) -> None:
        """The configuration as it is now in the place of the old one, or the old one kept."""
        self._patience.succeeded(RELOAD)
        self._refusals = OnceEach()
        self._wanted = None
        try:
            loaded = self._parts.load()
        except Exception as error:
            self._refuse(error)
        else:
            self._wanted = Wanted(loaded, Watched(loaded.secret_files))
            self.reload_again()

    def wants_again(self) -> bool:
        """Whether what was read at the last reload was kept out by what may have passed."""
        return self._wanted is not None and self._patience.left(RELOAD) == 0

    def reload_again(self) -> None:
        """The same once more, as it was read then."""
        if self._wanted is None:
            return
        loaded, secrets = self._wanted
        try:
            self._look_for_store(loaded)
            # Before the store is told where the destinations are now.
            with self._served.replaced(self.loaded, loaded):
                app = self._parts.build(loaded)
        except Exception as error:
            self._refuse(error)
            return
        self._wanted = None
        self.loaded, self.secrets = loaded, secrets
        self._replace(app)
        log.info("reloaded", audiences=len(app.audiences), destinations=sorted(app.destinations))
        self._parts.counters.reloaded("done")

    def _refuse(self, error: Exception) -> None:
        """Say so once for each reason; only what a person must change is not tried again."""
        if getattr(error, "exit_code", None) == ConfigError.exit_code:
            self._wanted = None
        again = {}
        if self._wanted is not None:
            again = {"again_in_seconds": round(self._patience.failed(RELOAD))}
        self._parts.counters.reloaded("refused")
        if not self._refusals.is_news(RELOAD, repr(error)):
            return
        if isinstance(error, AudienceSyncError):
            said = problems(error) | again
            log.error("not reloaded: the configuration in use is kept", **said)
        else:
            log.error("not reloaded: this is a bug", exc_info=error, **again)

    def stop(self) -> None:
        """No new work from now on, whatever is under way."""
        self._stopping.set()
        generation = self.generation
        if generation is not None:
            generation.stop()

    def only_captures(self) -> bool:
        """Whether nothing is sent any more, and a capture is all that has not ended."""
        living = [former.generation for former in self._former]
        if self.generation is not None:
            living.append(self.generation)
        return bool(living) and all(generation.join_deliveries(0.0) for generation in living)

    def end(self, seconds: float) -> bool:
        """Whether everything has ended within ``seconds``."""
        over = time.monotonic() + seconds
        self.stop()
        generation = self.generation
        if generation is not None:
            if not generation.join(seconds):
                return False
            generation.app.close()
        for former in self._former:
            former.closing.join(max(0.0, over - time.monotonic()))
        self._served.stop()
        return not any(former.closing.is_alive() for former in self._former)

    def _look_for_store(self, loaded: Loaded) -> None:
        """One that is not there would be made, and everybody told by it: a slip in its address,
        or a file that is gone.

        Raises StoreFailed.
        """
        if self.generation is None:
            return
        if loaded.config.store.url == self.loaded.config.store.url:
            with self.generation.app.database.read():
                return
        with closing(Database(loaded.config.store.url)) as database:
            if migrate.version(database) is None:
                raise StoreFailed(
                    "there is no store at the new [store] url: everybody would be told anew. "
                    "If that is meant, make it with `audience-sync db upgrade` first"
                )

    def _built_patiently(self) -> App | None:
        """A store may come up later than we do, as with containers."""
        over = self._parts.elapsed() + PATIENCE
        news = OnceEach()
        while not self._stopping.is_set():
            try:
                return self._parts.build(self.loaded)
            except StoreFailed as error:
                if error.exit_code != StoreFailed.exit_code or self._parts.elapsed() > over:
                    raise
                if news.is_news("store", str(error)):
                    log.warning("waiting for the store", **error_said(error))
            self._stopping.wait(TRY_AGAIN)
        return None

    def _put_to_work(self, app: App) -> None:
        generation = Generation(
            app,
            slot=self._slot,
            pulse=self._pulse,
            clock=self._parts.clock,
            elapsed=self._parts.elapsed,
            counters=self._parts.counters,
        )
        self.generation = generation
        # A stop either sees this generation, or is seen here.
        if not self._stopping.is_set():
            generation.start()

    def _replace(self, app: App) -> None:
        old = self.generation
        if old is not None:
            old.stop()
            old.join_deliveries(DELIVERIES_END_WITHIN)
        self._put_to_work(app)
        self._former = [former for former in self._former if former.closing.is_alive()]
        if old is not None:
            closing = threading.Thread(target=_close, args=(old,), name="close", daemon=True)
            self._former.append(Former(old, closing))
            closing.start()


def _close(old: Generation) -> None:
    """A capture of the former generation ends as it began; then its store is closed."""
    while not old.join(60.0):
        pass
    old.app.close()
