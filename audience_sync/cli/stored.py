"""From patterns to audiences that were captured, whether they are still configured or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from audience_sync.cli.opened import named
from audience_sync.errors import UsageError

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.store.overview import AudienceState


def stored(app: App, patterns: Sequence[str]) -> list[AudienceState]:
    """Audiences by key, name or glob, each once; those that a capture was tried of.

    Raises:
        UsageError: there is none.
    """
    from audience_sync.store import overview

    keys, states = named(app, patterns), overview.audiences(app.database)
    if found := [states[key] for key in keys if key in states]:
        return found
    hint = "audience-sync sync makes the first snapshot"
    raise UsageError(f"{', '.join(keys)} was never captured", hint=hint)


def stored_one(app: App, pattern: str) -> AudienceState:
    """Raises UsageError also when there are several."""
    found = stored(app, [pattern])
    if len(found) > 1:
        keys = ", ".join(state.key for state in found)
        raise UsageError(f"{pattern} is more than one audience", hint=f"there are: {keys}")
    return found[0]
