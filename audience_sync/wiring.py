"""Destinations, wired out of the configuration: where each is, and what sends there."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from functools import partial

import structlog

from audience_sync import logs
from audience_sync.config.address import canonical, parse
from audience_sync.config.crisp import CrispDestination
from audience_sync.config.load import Loaded, load
from audience_sync.config.model import Config, NdjsonDestination, SegmentDestination
from audience_sync.destinations import crisp, ndjson, segment
from audience_sync.domain.message_id import keyed
from audience_sync.errors import ConfigError
from audience_sync.pipeline.ports.sending import Contacts
from audience_sync.store.installation import Installation

log = structlog.get_logger(__name__)

Destination = segment.SegmentDestination | crisp.CrispDestination | ndjson.NdjsonDestination
Clock = Callable[[], datetime]

OF_ITS_KEY = "the website of its key"


def places(config: Config) -> dict[str, str]:
    """Where each destination is, however its address is spelt."""
    return {name: _place(destination) for name, destination in config.destinations.items()}


def _place(configured: SegmentDestination | CrispDestination | NdjsonDestination) -> str:
    match configured:
        case SegmentDestination():
            return canonical(configured.endpoint)
        case CrispDestination():
            endpoint = canonical(configured.endpoint)
            return f"{endpoint} {configured.website_id or OF_ITS_KEY}"
        case NdjsonDestination():
            return os.path.realpath(configured.path)


def harmless(config: Config) -> frozenset[str]:
    """Files, and servers on this machine."""
    return frozenset(
        name
        for name, configured in config.destinations.items()
        if isinstance(configured, NdjsonDestination) or parse(configured.endpoint).is_loopback
    )


def destinations(
    loaded: Loaded,
    installation: Installation,
    *,
    contacts: Callable[[str], Contacts],
    clock: Clock,
) -> dict[str, Destination]:
    """By name. ``contacts``: by the name of a destination."""
    made: dict[str, Destination] = {}
    for name, configured in loaded.config.destinations.items():
        match configured:
            case SegmentDestination():
                made[name] = _segment(loaded, installation, name, configured, clock)
            case CrispDestination():
                made[name] = _crisp(loaded, installation, name, configured, contacts(name), clock)
            case NdjsonDestination():
                made[name] = _ndjson(installation, name, configured)
    return made


def _segment(
    loaded: Loaded,
    installation: Installation,
    name: str,
    configured: SegmentDestination,
    clock: Clock,
) -> segment.SegmentDestination:
    return segment.SegmentDestination(
        name=name,
        write_key=configured.write_key,
        endpoint=configured.endpoint,
        integrations=configured.integrations,
        with_track="track" in configured.calls,
        rate=configured.rate,
        quota=configured.quota,
        reserve=configured.reserve,
        concurrency=configured.concurrency,
        max_calls=configured.batch,
        deadline=configured.deadline.total_seconds(),
        fingerprint=keyed(installation.secret, configured.endpoint, configured.write_key),
        clock=clock,
        reread=partial(_key_now, loaded, name),
    )


def _crisp(
    loaded: Loaded,
    installation: Installation,
    name: str,
    configured: CrispDestination,
    contacts: Contacts,
    clock: Clock,
) -> crisp.CrispDestination:
    return crisp.CrispDestination(
        name=name,
        api_key=configured.api_key,
        endpoint=configured.endpoint,
        tier=configured.tier,
        website_id=configured.website_id,
        with_track="track" in configured.calls,
        bulk=configured.bulk,
        rate=configured.rate,
        quota=configured.requests_a_day,
        reserve=configured.reserve,
        concurrency=configured.concurrency,
        deadline=configured.deadline.total_seconds(),
        fingerprint=keyed(installation.secret, _place(configured), configured.api_key),
        contacts=contacts,
        salt=installation.secret,
        clock=clock,
        reread=partial(_key_now, loaded, name),
    )


def _ndjson(
    installation: Installation, name: str, configured: NdjsonDestination
) -> ndjson.NdjsonDestination:
    return ndjson.NdjsonDestination(
        name=name,
        path=configured.path,
        rate=configured.rate,
        quota=configured.quota,
        reserve=configured.reserve,
        with_track="track" in configured.calls,
        fingerprint=keyed(installation.secret, str(configured.path)),
    )


def _key_now(loaded: Loaded, name: str) -> str | None:
    """The key of ``name`` in the files as they are now; ``None`` when they cannot be used, or when
    they mean another place by that name."""
    try:
        again = load(loaded.files, os.environ)
    except ConfigError:
        log.warning("configuration invalid by now: the key is kept", destination=name)
        return None
    logs.hide(again.secrets)
    before, found = loaded.config.destinations[name], again.config.destinations.get(name)
    if isinstance(before, SegmentDestination) and isinstance(found, SegmentDestination):
        return found.write_key if found.endpoint == before.endpoint else None
    if isinstance(before, CrispDestination) and isinstance(found, CrispDestination):
        same = _place(found) == _place(before) and found.tier == before.tier
        return found.api_key if same else None
    return None
