"""What the commands that change something have in common: a reason, and somebody's yes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from audience_sync.cli.actor import actor

if TYPE_CHECKING:
    from audience_sync.store.orders import Given

Command = TypeVar("Command", bound=Callable[..., Any])


def lever(command: Command) -> Command:
    """Adds ``--reason`` and ``--yes``."""
    command = click.option("--yes", is_flag=True, help="Do not ask.")(command)
    return click.option("--reason", help="Kept in the history.")(command)


def given(reason: str | None) -> Given:
    from audience_sync.store.orders import Given

    return Given(actor=actor(), reason=reason)
