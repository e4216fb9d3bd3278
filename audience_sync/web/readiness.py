"""Whether the store can be used, said in words that anybody may read: no host, no user, no path."""

from __future__ import annotations

import structlog

from audience_sync.errors import StoreFailed
from audience_sync.standing.facts import Facts
from audience_sync.store import migrate

log = structlog.get_logger(__name__)

READY = "ready"
STARTING = "starting"
SILENT = "the store does not answer"


class Readiness:
    """Asked by one thread at a time; tells the log once what is wrong."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._said = READY

    def state(self) -> str:
        """``READY``, or what is missing in one line."""
        details: dict[str, object] = {}
        try:
            state = self._state(details)
        except Exception as error:
            state, details = "the store cannot be asked", {"exc_info": error}
        if state not in (self._said, READY, STARTING):
            log.warning("not ready", reason=state, **details)
        self._said = state
        return state

    def _state(self, details: dict[str, object]) -> str:
        app = self._facts.app()
        if app is None:
            return STARTING
        try:
            found = migrate.version(app.database)
        except StoreFailed as error:
            details.update(error=str(error), hint=error.hint)
            return "the store cannot be read"
        if found is None:
            return "the store is gone"
        try:
            migrate.check_readable(found)
        except StoreFailed as error:
            return str(error)  # two numbers of versions, no more
        return READY
