"""``audience-sync config schema``: the JSON schema, for editors."""

from __future__ import annotations

import json

import rich_click as click

from audience_sync.cli.output import say


@click.group()
def config() -> None:
    """Help with the configuration file."""


@config.command()
def schema() -> int:
    """Print the JSON schema of config.toml."""
    from audience_sync.config.schema import schema as made

    say(json.dumps(made(), indent=2, ensure_ascii=False))
    return 0
