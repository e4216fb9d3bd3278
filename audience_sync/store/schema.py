"""The tables, for queries. `migrations/` makes them; a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.types import JSON

metadata = MetaData()


class UtcTime(TypeDecorator[datetime]):
    """Aware datetimes in and out; SQLite keeps no zone, so UTC is what it stores."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# Positions compare by the bytes of UTF-8: SQLite's default, "C" on PostgreSQL.
UserId = Text().with_variant(Text(collation="C"), "postgresql")
Number = BigInteger().with_variant(Integer(), "sqlite")


def _id() -> Column[Any]:
    return Column("id", Number, primary_key=True)


def _to(table: str, *, nullable: bool = False) -> Column[Any]:
    return Column(f"{table}_id", Number, ForeignKey(f"{table}.id"), nullable=nullable)


installation = Table(
    "installation",
    metadata,
    _id(),
    Column("key", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
)

audience = Table(
    "audience",
    metadata,
    _id(),
    Column("key", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("last_captured_at", UtcTime),
    Column("next_due", UtcTime),
    Column("last_error", Text),
    Column("paused_at", UtcTime),  # by a person: neither captured nor told
    Column("retired_at", UtcTime),  # closed for good; its key is never used again
)

destination = Table(
    "destination",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("place", Text),  # endpoint or path: another place was told nothing
    Column("paused_reason", Text),
    Column("paused_since", UtcTime),
    Column("paused_until", UtcTime),
    Column("stopped_at", UtcTime),  # by a person: nothing is sent until resumed
    Column("website_id", Text),  # of Crisp, where the configuration names none
)

snapshot = Table(
    "snapshot",
    metadata,
    _id(),
    _to("audience"),
    Column("seq", Integer, nullable=False),
    Column("state", Text, nullable=False),  # staged, current, held or discarded
    Column("captured_at", UtcTime, nullable=False),
    Column("next_due", UtcTime, nullable=False),
    Column("columns", JSON, nullable=False),
    Column("has_base", Boolean, nullable=False),
    Column("previous", Number, nullable=False),
    Column("entered", Number, nullable=False),
    Column("exited", Number, nullable=False),
    Column("updated", Number, nullable=False),
    Column("members", Number, nullable=False),
    Column("rows_read", Number, nullable=False),
    Column("refused", JSON, nullable=False),
    Column("duplicates", Number, nullable=False),
    Column("plan_id", Text, nullable=False),
    Column("query_hash", Text, nullable=False),
    Column("held_for", JSON, nullable=False),
    Column("approved_at", UtcTime),
    Index(
        "snapshot_seq",
        "audience_id",
        "seq",
        unique=True,
        sqlite_where=text("state = 'current'"),
        postgresql_where=text("state = 'current'"),
    ),
)

chunk = Table(
    "chunk",
    metadata,
    Column("snapshot_id", Number, ForeignKey("snapshot.id"), primary_key=True),
    Column("part", Text, primary_key=True),  # base or changes
    Column("ordinal", Integer, primary_key=True),
    Column("rows", Integer, nullable=False),
    Column("first_user_id", UserId, nullable=False),
    Column("last_user_id", UserId, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

told = Table(
    "told",
    metadata,
    Column("audience_id", Number, ForeignKey("audience.id"), primary_key=True),
    Column("destination_id", Number, ForeignKey("destination.id"), primary_key=True),
    Column("told_seq", Integer, nullable=False),
)

# An audience and a destination that the configuration no longer brings together.
gone = Table(
    "gone",
    metadata,
    Column("audience_id", Number, ForeignKey("audience.id"), primary_key=True),
    Column("destination_id", Number, ForeignKey("destination.id"), primary_key=True),
    Column("since", UtcTime, nullable=False),
    Column("released_at", UtcTime),  # after keep: nothing is pinned for the pair any more
)

# An order to tell everybody's state anew. It stands until the span that tells it is completed.
resync = Table(
    "resync",
    metadata,
    Column("audience_id", Number, ForeignKey("audience.id"), primary_key=True),
    Column("destination_id", Number, ForeignKey("destination.id"), primary_key=True),
    Column("requested_at", UtcTime, nullable=False),
    Column("span_id", Number),  # the span that was opened for it
)

span = Table(
    "span",
    metadata,
    _id(),
    _to("audience"),
    _to("destination"),
    Column("number", Integer, nullable=False),
    Column("lane", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("held_for", Text),
    Column("tell", JSON, nullable=False),
    Column("from_seq", Integer, nullable=False),
    Column("to_seq", Integer, nullable=False),
    Column("position", UserId),
    Column("total", Number, nullable=False),
    Column("accepted", Number, nullable=False),
    Column("rejected", Number, nullable=False),
    Column("skipped", Number, nullable=False),
    Column("opened_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Index("span_number", "audience_id", "destination_id", "number", unique=True),
    Index(
        "span_open",
        "audience_id",
        "destination_id",
        unique=True,
        sqlite_where=text("state IN ('open', 'held')"),
        postgresql_where=text("state IN ('open', 'held')"),
    ),
)

rejection = Table(
    "rejection",
    metadata,
    _id(),
    _to("span"),
    Column("user_id", UserId, nullable=False),
    Column("outcome", Text, nullable=False),  # rejected or skipped
    Column("reason", Text, nullable=False),
    Column("recorded_at", UtcTime, nullable=False),
    # Those of its span, so that what stands for a user is found by one index.
    Column("audience_id", Number),
    Column("destination_id", Number),
    Column("retry_at", UtcTime),  # when a person asked to tell it again
    Column("retried_in", Number),  # the span that took up the retry
    Column("resolved_in", Number),  # the later span in which the member was handled again
    Index("rejection_span", "span_id"),
    Index("rejection_standing", "audience_id", "destination_id", "user_id"),
    Index("rejection_user", "destination_id", "user_id"),
)

# What the lanes of a destination reserved of its daily quota before they sent it.
quota = Table(
    "quota",
    metadata,
    Column("destination_id", Number, ForeignKey("destination.id"), primary_key=True),
    Column("day", Date, primary_key=True),  # of UTC
    Column("lane", Text, primary_key=True),
    Column("reserved", Number, nullable=False),
)

# Who a user is among a destination's own people, and what they were told of profile columns.
contact = Table(
    "contact",
    metadata,
    Column("destination_id", Number, ForeignKey("destination.id"), primary_key=True),
    Column("user_id", UserId, primary_key=True),
    Column("people_id", Text),
    Column("email", Text),  # in lower case
    Column("as_of", UtcTime, nullable=False),  # cycle time of the newest column told
    Column("profile", Text, nullable=False),  # of each column a hash and its cycle time
    Index("contact_email", "destination_id", "email"),
)

# People whom a destination listed, most of whom no audience has: references in place of e-mails.
person = Table(
    "person",
    metadata,
    Column("destination_id", Number, ForeignKey("destination.id"), primary_key=True),
    Column("reference", Text, primary_key=True),
    Column("people_id", Text, nullable=False),
    Column("profile", Text, nullable=False),
)

listing = Table(
    "listing",
    metadata,
    Column("destination_id", Number, ForeignKey("destination.id"), primary_key=True),
    Column("began_at", UtcTime, nullable=False),
    Column("page", Integer, nullable=False),  # the last one whose people are stored
    Column("is_complete", Boolean, nullable=False),
)

# Who asked to be forgotten: SHA-256 of the installation's secret and the user id, in hex.
forgotten = Table(
    "forgotten",
    metadata,
    Column("reference", Text, primary_key=True),
    Column("forgotten_at", UtcTime, nullable=False),
)

run = Table(
    "run",
    metadata,
    _id(),
    Column("kind", Text, nullable=False),  # capture, delivery, or the name of a person's order
    _to("audience", nullable=True),
    _to("destination", nullable=True),
    Column("lane", Text),
    _to("snapshot", nullable=True),
    Column("cycle_time", UtcTime),
    Column("started_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("outcome", Text, nullable=False),
    Column("counts", JSON, nullable=False),
    Column("error", Text),
    Column("actor", Text),  # who gave the order: user@host
    Index("run_started", "started_at"),
)

lease = Table(
    "lease",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("expires_at", Float, nullable=False),  # seconds since 1970, by the database's clock
)
