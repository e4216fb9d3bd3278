"""``audience-sync init``: a commented configuration to start from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import rich_click as click

from audience_sync.cli.output import say
from audience_sync.errors import UsageError


@click.command()
@click.option("--example", is_flag=True, help="Write the example shop's data too.")
@click.option("--force", is_flag=True, help="Write over files that are there.")
@click.pass_context
def init(context: click.Context, example: bool, force: bool) -> int:
    """Write a commented config.toml; with --example a small shop that it syncs."""
    target: Path = context.obj[0]
    files = {target: template("config.toml")}
    if example:
        shop = target.parent / "examples" / "shop"
        files |= {shop / file.name: file for file in sorted(template("examples/shop").iterdir())}
    there = [str(path) for path in files if os.path.lexists(path)]
    if there and not force:
        raise UsageError(f"{', '.join(there)} is there already", hint="--force writes over it")
    for path, original in files.items():
        _write(path, original)
        say(f"wrote {path}")
    say("next: audience-sync check" if example else "next: edit it, then audience-sync check")
    return 0


def _write(path: Path, original: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(original, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror})") from None


def template(name: str) -> Path:
    """A file or folder inside an installed wheel, or at the top of a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "templates" / name
    return inside if inside.exists() else package.parent / name
