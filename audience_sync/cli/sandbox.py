"""``audience-sync sandbox``: both APIs on this machine, and what arrived."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from audience_sync.cli.output import say
from audience_sync.cli.signals import STOPS, heard, withheld
from audience_sync.errors import UsageError

if TYPE_CHECKING:
    from audience_sync.sandbox.options import Options

LOOK_EVERY = 1.0
"""Seconds; a signal is heard at once."""


class Parsed(click.ParamType[Any]):
    """What a function that raises ``ValueError`` makes of the text."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(
        self, value: object, param: click.Parameter | None, context: click.Context | None
    ) -> Any:
        try:
            return self._parse(str(value))
        except ValueError as error:
            self.fail(str(error))


def _address(text: str) -> Any:
    from audience_sync.config.listening import listen

    return listen(text)


def _failure(text: str) -> Any:
    from audience_sync.sandbox.options import failure

    return failure(text)


def _rate(text: str) -> float:
    from audience_sync.sandbox.options import per_second

    return per_second(text)


# Only what a configuration may say, so that the lines that are printed can be used.


def _write_key(text: str) -> str:
    from audience_sync.config.values import secret

    return secret(text)


def _crisp_key(text: str) -> str:
    from audience_sync.config.crisp import api_key

    return api_key(text)


def _website(text: str) -> str:
    from audience_sync.config.crisp import website_id

    return website_id(text)


ADDRESS = Parsed("address", _address)
FAILURE = Parsed("what:share", _failure)
RATE = Parsed("n/s", _rate)
WRITE_KEY = Parsed("key", _write_key)
CRISP_KEY = Parsed("id:key", _crisp_key)
WEBSITE = Parsed("id", _website)
SECONDS = click.FloatRange(min=0, max=86_400)


@click.command()
@click.option(
    "--listen",
    type=ADDRESS,
    default="127.0.0.1:8345",
    show_default=True,
    help="Address and port; port 0: any that is free.",
)
@click.option("--yes", is_flag=True, help="Allow an address that other machines reach.")
@click.option(
    "--write",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the lines of configuration here too, once it listens.",
)
@click.option("--write-key", type=WRITE_KEY, help="The Segment key that it takes.")
@click.option("--crisp-key", type=CRISP_KEY, help="The Crisp key that it takes.")
@click.option(
    "--website-id",
    "websites",
    type=WEBSITE,
    multiple=True,
    help="A Crisp website; several may be.",
)
@click.option(
    "--tier",
    "tiers",
    multiple=True,
    type=click.Choice(("plugin", "website", "user")),
    help="What the Crisp key is good for. [default: all]",
)
@click.option(
    "--quota",
    type=click.IntRange(min=0),
    help="Crisp requests a day. [default: plugin 5000, website 10000]",
)
@click.option("--rate", type=RATE, help="Crisp requests a second. [default: no limit]")
@click.option("--segment-rate", type=RATE, help="Segment events a second. [default: no limit]")
@click.option(
    "--batch-people",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="People that one Crisp batch may name.",
)
@click.option(
    "--fail",
    "failures",
    type=FAILURE,
    multiple=True,
    help="A status or a fault, and its share of the requests: 429:0.1, reset:0.05.",
)
@click.option(
    "--stale",
    type=SECONDS,
    default=0.0,
    help="Seconds for which Crisp repeats its answers to GET and HEAD.",
)
@click.option(
    "--lenient", is_flag=True, help="As Segment: 200 for an unknown key and for a batch too long."
)
@click.option(
    "--hang",
    type=SECONDS,
    default=30.0,
    show_default=True,
    help="Seconds until a `timeout` ends.",
)
@click.option(
    "--people",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="People that Crisp has already: CSV or NDJSON with email, nickname, ….",
)
@click.option("--seed", type=int, help="Of ids and failures. [default: another one each time]")
def sandbox(listen: Any, yes: bool, file: Path | None, people: Path | None, **given: Any) -> int:
    """Run a local server that speaks Segment's tracking API and Crisp's REST API.

    Point your destinations at it with the lines that it prints; its page shows what arrived.
    Everything is kept in memory and gone when it is stopped (Ctrl-C). See docs/sandbox.md.
    """
    if not (listen.is_loopback or yes):
        raise UsageError(
            "other machines would reach the sandbox",
            hint="listen on 127.0.0.1, or allow it with --yes",
        )
    if file is not None:
        _refuse_other(file)
    from audience_sync import logs
    from audience_sync.sandbox.existing import existing
    from audience_sync.sandbox.server import server

    logs.configure(())  # there is no secret here
    options = _options(given)
    with withheld():
        made = server(options, listen, _now, existing(people) if people else ())
        made.start()
        try:
            _introduce(options, f"http://{_written(listen.host)}:{made.port}", file)
            while heard(LOOK_EVERY, STOPS) is None and made.is_alive:
                pass
        finally:
            made.stop()
    return 0


def _refuse_other(file: Path) -> None:
    """Of what a sandbox wrote before, nothing is lost.

    Raises:
        UsageError: the file holds something else, such as a configuration.
    """
    from audience_sync.sandbox.pointing import is_configuration

    try:
        before = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError):
        before = "something else"
    if before.strip() and not is_configuration(before):
        raise UsageError(
            "--write: the file is there, and not of a sandbox",
            hint="name another one, or remove it",
        )


def _now() -> datetime:
    return datetime.now(UTC)


def _introduce(options: Options, base: str, file: Path | None) -> None:
    from audience_sync.sandbox.pointing import configuration

    lines = configuration(options, base)
    say(f"# The sandbox listens; what arrives is shown on {base}/ (Ctrl-C ends it).\n\n{lines}")
    if file is not None:
        # At once: its being there is how a script learns that the sandbox listens.
        unfinished = file.with_name(f".{file.name}.unfinished")
        try:
            unfinished.write_text(lines + "\n", encoding="utf-8")
            unfinished.replace(file)
        except OSError as error:
            raise UsageError(f"--write: the file cannot be written ({error.strerror})") from None


def _written(host: str) -> str:
    """An address as it stands in a URL; one that means all is reached here by loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{host}]" if ":" in host else host


def _options(given: dict[str, Any]) -> Options:
    from audience_sync.sandbox.options import Options

    if given["seed"] is None:
        # A store that knows people of an earlier sandbox must not take others for them.
        given["seed"] = secrets.randbits(64)
    # What was not given has its default there.
    return Options(**{name: value for name, value in given.items() if value not in (None, ())})
