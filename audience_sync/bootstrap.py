"""Everything is wired here, once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import structlog

from audience_sync.app import App, now
from audience_sync.config.load import Loaded
from audience_sync.config.model import AudienceConfig, Config
from audience_sync.destinations.crisp import CrispDestination
from audience_sync.domain.audience import Audience, AudienceKey
from audience_sync.engines.duckdb import DuckDBEngine
from audience_sync.engines.instance import open_instance
from audience_sync.engines.members import DuckDBMembers
from audience_sync.errors import ConfigError
from audience_sync.pipeline.captures import Configured
from audience_sync.pipeline.ports.reading import Source
from audience_sync.pipeline.subscription import Subscription
from audience_sync.sources.files import Connect, FilesSource
from audience_sync.sources.freshness import Freshness
from audience_sync.sources.sql.source import SqlSource
from audience_sync.sources.told_columns import ToldColumns
from audience_sync.store import migrate, overview, schema
from audience_sync.store.contacts import Contacts
from audience_sync.store.destinations import Destinations
from audience_sync.store.engine import Database
from audience_sync.store.gone import settle
from audience_sync.store.history import Histories
from audience_sync.store.ids import another_kind
from audience_sync.store.installation import installation_of
from audience_sync.store.leases import A_PERSON_WAITS, Leases
from audience_sync.store.lookups import Lookups
from audience_sync.store.orders import Orders
from audience_sync.store.quotas import Quotas
from audience_sync.store.rejections import Rejections
from audience_sync.store.snapshots import Snapshots
from audience_sync.store.spans import Spans
from audience_sync.wiring import Destination, destinations, harmless, places

log = structlog.get_logger(__name__)


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
    store = database = Database(config.store.url)
    is_new = writes and migrate.upgrade(database) == "made"
    if not writes:
        database = _read_only(database, offline=offline)
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
    contacts = partial(_contacts, database, books, config)
    told = destinations(loaded, installation, contacts=contacts, clock=now)
    return App(
        config=config,
        database=database,
        is_new=is_new,
        absent=store if database is not store else None,
        installation=installation,
        snapshots=Snapshots(database, now, config.store.keep),
        spans=Spans(database, now, places(config)),
        leases=Leases(database),
        patient_leases=Leases(database, wait=A_PERSON_WAITS),
        books=books,
        quotas=Quotas(database),
        orders=Orders(database, now),
        rejections=Rejections(database),
        instance=duckdb,
        engine=DuckDBEngine(duckdb.cursor),
        members=DuckDBMembers(duckdb.cursor),
        lookups=Lookups(database),
        histories=Histories(database),
        sources=sources,
        destinations=told,
        audiences={a.key: _configured(a, sources, told) for a in config.audiences},
        subscriptions=_subscriptions(config),
        places=places(config),
        harmless=harmless(config),
    )


def _read_only(database: Database, *, offline: bool) -> Database:
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
    for name, place in places(config).items():
        if books.settle(name, place):
            log.warning("destination moved: it goes on as it stood there", destination=name)


def _together(config: Config) -> set[tuple[AudienceKey, str]]:
    return {(audience.key, name) for audience in config.audiences for name in audience.destinations}


def _contacts(database: Database, books: Destinations, config: Config, name: str) -> Contacts:
    return Contacts(database, books.stored_as(name, places(config)[name]))


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


def _configured(
    audience: AudienceConfig, sources: Mapping[str, Source], told: Mapping[str, Destination]
) -> Configured:
    refuses = {
        name: to.refuses
        for name in audience.destinations
        if isinstance(to := told[name], CrispDestination)
    }
    source = sources[audience.source]
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
        source=ToldColumns(source=source, refuses=refuses) if refuses else source,
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
