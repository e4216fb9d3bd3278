"""What the commands that change something have in common: a reason, and somebody's yes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from audience_sync.actor import actor

if TYPE_CHECKING:
    from audience_sync.app import App
    from audience_sync.domain.audience import AudienceKey
    from audience_sync.store.orders import Given

Command = TypeVar("Command", bound=Callable[..., Any])


def lever(command: Command) -> Command:
    """Adds ``--reason`` and ``--yes``."""
    command = click.option("--yes", is_flag=True, help="Do not ask.")(command)
    return click.option("--reason", help="Kept in the history.")(command)


def given(reason: str | None) -> Given:
    from audience_sync.store.orders import Given

    return Given(actor=actor(), reason=reason)


def not_retired(app: App, keys: Sequence[AudienceKey]) -> list[AudienceKey]:
    """``keys`` without audiences that are closed: a pattern finds them too."""
    known = app.orders.known()
    return [key for key in keys if key not in known or not known[key].retired_at]
