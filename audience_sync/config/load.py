"""From files to a ``Config``: read, include, merge, fill in, validate, check, resolve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import ValidationError

from audience_sync.config.anchor import anchor
from audience_sync.config.cadence import parse_cadence
from audience_sync.config.checks import check, check_secrets
from audience_sync.config.draft import Draft, interpolate, merge
from audience_sync.config.explain import explain
from audience_sync.config.model import (
    AudienceConfig,
    AudienceTable,
    ComputedTraitTable,
    Config,
    GuardTable,
    Schedule,
    Written,
)
from audience_sync.config.places import Findings, KeyPath
from audience_sync.config.queries import read_queries
from audience_sync.config.read import read_all
from audience_sync.domain.audience import AudienceKey, Kind, OnRetire, State, Tell
from audience_sync.domain.guard import Limits
from audience_sync.domain.trait_key import trait_key
from audience_sync.errors import ConfigError

SHORTEST_SECRET = 4
"""Characters. Redacting anything shorter would make logs unreadable and hide nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """``files``: as they were named. ``secrets``: texts that no log may show. ``secret_files``:
    where some of them were read. ``folder``: of the first file, absolute."""

    files: tuple[Path, ...]
    config: Config
    warnings: tuple[str, ...]
    secrets: frozenset[str] = field(repr=False)
    secret_files: frozenset[Path]
    folder: Path


def load(paths: Sequence[Path], environ: Mapping[str, str]) -> Loaded:
    """The configuration that ``paths`` and what they include make together.

    Later files win, table by table; audiences are added. Relative paths are relative to the file
    that names them. Only files of the configuration, secret files and query files are read.

    Raises:
        ConfigError: every problem at once, each ``config.toml:9: audiences[0].every: …``.
    """
    if not paths:
        raise ConfigError(["no configuration file is named (--config config.toml)"])
    findings = Findings()
    documents, complete = read_all(paths, environ, findings)
    if not documents:
        raise ConfigError(findings.problems)
    draft = merge(documents, findings)
    interpolate(draft, environ, findings)
    check_secrets(draft, findings)
    anchor(draft, findings)
    written = _validated(draft, findings, complete=complete)
    if complete:
        check(draft, findings)
    queries = read_queries(draft, findings)
    if findings.problems or written is None:
        raise ConfigError(findings.problems)
    return Loaded(
        files=tuple(paths),
        config=_resolved(written, queries),
        warnings=findings.warnings,
        secrets=frozenset(text for text in draft.secrets if len(text) >= SHORTEST_SECRET),
        secret_files=frozenset(draft.secret_files),
        folder=Path(paths[0]).parent.absolute(),
    )


def _validated(draft: Draft, findings: Findings, *, complete: bool) -> Written | None:
    try:
        return Written.model_validate(draft.data)
    except ValidationError as error:
        explain(error, draft, findings, complete=complete)
        return None


def _resolved(written: Written, queries: Mapping[KeyPath, str]) -> Config:
    limits = _limits(Limits(), written.guard)
    zone = written.schedule.timezone
    every = parse_cadence(written.schedule.every, zone)
    schedule = Schedule(every=every, timezone=zone)
    return Config(
        store=written.store,
        schedule=schedule,
        guard=limits,
        engine=written.engine,
        status=written.status,
        sources=written.sources,
        destinations=written.destinations,
        audiences=tuple(
            _audience(audience, queries[array, index], schedule, limits)
            for array, tables in (
                ("audiences", written.audiences),
                ("computed_traits", written.computed_traits),
            )
            for index, audience in enumerate(tables)
        ),
    )


def _audience(
    audience: ComputedTraitTable, query: str, schedule: Schedule, limits: Limits
) -> AudienceConfig:
    cadence = schedule.every
    if audience.every is not None:
        cadence = parse_cadence(audience.every, schedule.timezone)
    kind, tell = Kind.COMPUTED_TRAIT, frozenset(Tell)
    if isinstance(audience, AudienceTable):
        kind, tell = Kind.AUDIENCE, frozenset(Tell(word) for word in audience.tell)
    return AudienceConfig(
        key=AudienceKey(audience.key or trait_key(audience.name)),
        explicit_key=audience.key is not None,
        name=audience.name,
        kind=kind,
        state=State(audience.state),
        on_retire=OnRetire(audience.on_retire),
        source=audience.source,
        query=query,
        destinations=tuple(audience.destinations),
        cadence=cadence,
        limits=_limits(limits, audience.guard),
        tell=tell,
        owner=audience.owner,
        description=audience.description,
        tags=tuple(audience.tags),
    )


def _limits(defaults: Limits, guard: GuardTable) -> Limits:
    """``defaults`` with what ``guard`` says itself."""
    said = {name: getattr(guard, name) for name in guard.model_fields_set}
    return Limits(**(asdict(defaults) | said))
