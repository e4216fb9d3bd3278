"""Everything is wired here, once, into one object."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import structlog

from audience_sync import logs
from audience_sync.config.address import canonical, parse
from audience_sync.config.load import Loaded, load
from audience_sync.config.model import AudienceConfig, Config, SegmentDestination
from audience_sync.destinations import segment
from audience_sync.destinations.ndjson import NdjsonDestination
from audience_sync.domain.audience import Audience, AudienceKey, OnRetire
from audience_sync.domain.message_id import keyed
from audience_sync.domain.span import Span
from audience_sync.engines.duckdb import DuckDBEngine
from audience_sync.engines.instance import open_instance
from audience_sync.engines.members import DuckDBMembers
from audience_sync.errors import ConfigError
from audience_sync.pipeline.admission import Admission
from audience_sync.pipeline.captures import Captures, Configured
from audience_sync.pipeline.deliveries import Deliveries
from audience_sync.pipeline.lanes import Subscription
from audience_sync.pipeline.ports import Source
from audience_sync.pipeline.retire import retire
from audience_sync.sources.files import Connect, FilesSource
from audience_sync.sources.freshness import Freshness
from audience_sync.sources.nobody import Nobody
from audience_sync.sources.sql.source import SqlSource
from audience_sync.store import migrate, overview, schema
from audience_sync.store.destinations import Destinations
from audience_sync.store.engine import Database
from audience_sync.store.gone import settle
from audience_sync.store.history import Histories
from audience_sync.store.ids import another_kind
from audience_sync.store.installation import Installation, installation_of
from audience_sync.store.leases import Leases
from audience_sync.store.lookups import Lookups
from audience_sync.store.orders import Given, Orders
from audience_sync.store.rejections import Rejections
from audience_sync.store.retirement import Retirement
from audience_sync.store.snapshots import Snapshots
from audience_sync.store.spans import Spans

log = structlog.get_logger(__name__)

Destination = segment.SegmentDestination | NdjsonDestination


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class App:
    """The program, wired: what commands and, later, the scheduler call."""

    config: Config
    database: Database
    installation: Installation
    snapshots: Snapshots
    spans: Spans
    leases: Leases
    books: Destinations
    orders: Orders
    rejections: Rejections
    engine: DuckDBEngine
    members: DuckDBMembers
    lookups: Lookups
    histories: Histories
    sources: Mapping[str, Source]
    destinations: Mapping[str, Destination]
    audiences: Mapping[AudienceKey, Configured]
    subscriptions: Mapping[str, Mapping[AudienceKey, Subscription]]
    places: Mapping[str, str]
    """Where each destination is."""
    harmless: frozenset[str]
    """Destinations that a made-up ``--now`` cannot hurt: files, and servers on this machine."""

    def captures(self) -> Captures:
        return Captures(
            snapshots=self.snapshots,
            engine=self.engine,
            leases=self.leases,
            clock=now,
            draw=random.random,
        )

    def admission(self) -> Admission:
        """Who may be captured and told, by what the store knows now."""
        return Admission(known=self.orders.known(), configured=self.audiences.keys())

    def retire(self, audience: Audience, on_retire: OnRetire, given: Given) -> int:
        """Close an audience for good; how many members are told that they have left.

        Raises:
            LeaseTaken: it is being captured.
        """
        with self.leases.hold(f"capture:{audience.key}") as lease:
            self.snapshots.sweep(audience.key, lease)
            current = self.snapshots.current(audience.key)
            return retire(
                audience,
                on_retire=on_retire,
                nobody=Nobody(current.columns if current else {}),
                engine=self.engine,
                snapshots=self.snapshots,
                book=Retirement(database=self.database, clock=now, given=given),
                lease=lease,
                now=now(),
            )

    def deliveries(self, progress: Callable[[Span], None]) -> Deliveries:
        stopped = self.orders.stopped()
        return Deliveries(
            destinations={n: to for n, to in self.destinations.items() if n not in stopped},
            subscriptions=self.admission().subscriptions(self.subscriptions, self.audiences),
            spans=self.spans,
            book=self.books,
            leases=self.leases,
            installation=self.installation.key,
            clock=now,
            elapsed=time.monotonic,
            progress=progress,
        )

    def close(self) -> None:
        self.database.close()


def build(loaded: Loaded, *, writes: bool, offline: bool = False) -> App:
    """Wire the program for a configuration.

    Args:
        writes: make or migrate the store. Without it a store that is not there is stood in for
            by an empty one in memory, and one of another version is an error.
        offline: a store that is no file is stood in for as well.

    Raises:
        StoreFailed, StoreTooNew: the store cannot be used.
        ConfigError: a key was captured as an audience and is a computed trait now, or the other
            way round.
    """
    config = loaded.config
    database = Database(config.store.url)
    database = _prepared(database, writes=writes, offline=offline)
    _check_kinds(database, config)
    installation = installation_of(database, now(), writes=writes)
    duckdb = open_instance(
        memory_limit=config.engine.memory_limit,
        threads=config.engine.threads,
        spill=config.engine.spill,
    )
    sources = _sources(config, duckdb.cursor)
    books = Destinations(database, now)
    if writes:
        _settle(books, config)
        settle(database, _together(config), now())
    return App(
        config=config,
        database=database,
        installation=installation,
        snapshots=Snapshots(database, now, config.store.keep),
        spans=Spans(database, now, _places(config)),
        leases=Leases(database),
        books=books,
        orders=Orders(database, now),
        rejections=Rejections(database),
        engine=DuckDBEngine(duckdb.cursor),
        members=DuckDBMembers(duckdb.cursor),
        lookups=Lookups(database),
        histories=Histories(database),
        sources=sources,
        destinations=_destinations(loaded, installation),
        audiences={a.key: _configured(a, sources) for a in config.audiences},
        subscriptions=_subscriptions(config),
        places=_places(config),
        harmless=_harmless(config),
    )


def _prepared(database: Database, *, writes: bool, offline: bool) -> Database:
    if writes:
        migrate.upgrade(database)
        return database
    found = None if offline and not database.is_sqlite else migrate.version(database)
    migrate.check_readable(found)
    if found is not None:
        return database
    database.close()
    empty = Database("sqlite://")
    with empty.write() as connection:
        schema.metadata.create_all(connection)
    return empty


def _check_kinds(database: Database, config: Config) -> None:
    known = overview.audiences(database)
    problems = [
        another_kind(audience.key, audience.kind)
        for audience in config.audiences
        if (stored := known.get(audience.key)) and stored.seq and stored.kind is not audience.kind
    ]
    if problems:
        database.close()
        raise ConfigError(problems)


def _settle(books: Destinations, config: Config) -> None:
    for name, place in _places(config).items():
        if books.settle(name, place):
            log.warning("destination moved: it goes on as it stood there", destination=name)


def _together(config: Config) -> set[tuple[AudienceKey, str]]:
    return {(audience.key, name) for audience in config.audiences for name in audience.destinations}


def _places(config: Config) -> dict[str, str]:
    """Where each destination is, however its address is spelt."""
    return {
        name: canonical(place.endpoint)
        if isinstance(place, SegmentDestination)
        else os.path.realpath(place.path)
        for name, place in config.destinations.items()
    }


def _harmless(config: Config) -> frozenset[str]:
    return frozenset(
        name
        for name, place in config.destinations.items()
        if not isinstance(place, SegmentDestination) or parse(place.endpoint).is_loopback
    )


def _sources(config: Config, connect: Connect) -> dict[str, Source]:
    made: dict[str, Source] = {}
    for name, source in config.sources.items():
        said = source.freshness
        freshness = Freshness(max_age=said.max_age, query=said.query) if said else None
        if source.type == "sql":
            made[name] = SqlSource(
                name=name,
                url=source.url,
                connect_args=source.connect_args,
                timeout=source.timeout,
                freshness=freshness,
            )
        else:
            made[name] = FilesSource(root=source.root, connect=connect, freshness=freshness)
    return made


def _configured(audience: AudienceConfig, sources: Mapping[str, Source]) -> Configured:
    return Configured(
        audience=Audience(
            key=audience.key,
            name=audience.name,
            source=audience.source,
            query=audience.query,
            destinations=audience.destinations,
            kind=audience.kind,
            tell=audience.tell,
        ),
        source=sources[audience.source],
        limits=audience.limits,
        cadence=audience.cadence,
        state=audience.state,
        on_retire=audience.on_retire,
        explicit_key=audience.explicit_key,
    )


def _subscriptions(config: Config) -> dict[str, dict[AudienceKey, Subscription]]:
    return {
        name: {
            audience.key: Subscription(tell=audience.tell, limits=audience.limits)
            for audience in config.audiences
            if name in audience.destinations
        }
        for name in config.destinations
    }


def _write_key_now(loaded: Loaded, name: str, place: SegmentDestination) -> str | None:
    """The write key of ``name`` in the files as they are now; ``None`` when they cannot be used,
    or when they mean another place by that name."""
    try:
        again = load(loaded.files, os.environ)
    except ConfigError:
        log.warning("configuration invalid by now: the key is kept", destination=name)
        return None
    logs.hide(again.secrets)
    found = again.config.destinations.get(name)
    if not isinstance(found, SegmentDestination) or found.endpoint != place.endpoint:
        return None
    return found.write_key


def _destinations(loaded: Loaded, installation: Installation) -> dict[str, Destination]:
    made: dict[str, Destination] = {}
    for name, place in loaded.config.destinations.items():
        if isinstance(place, SegmentDestination):
            made[name] = segment.SegmentDestination(
                name=name,
                write_key=place.write_key,
                endpoint=place.endpoint,
                integrations=place.integrations,
                with_track="track" in place.calls,
                rate=place.rate,
                reserve=place.reserve,
                concurrency=place.concurrency,
                max_calls=place.batch,
                deadline=place.deadline.total_seconds(),
                fingerprint=keyed(installation.secret, place.endpoint, place.write_key),
                clock=now,
                reread=partial(_write_key_now, loaded, name, place),
            )
        else:
            made[name] = NdjsonDestination(
                name=name,
                path=place.path,
                rate=place.rate,
                reserve=place.reserve,
                with_track="track" in place.calls,
                fingerprint=keyed(installation.secret, str(place.path)),
            )
    return made
