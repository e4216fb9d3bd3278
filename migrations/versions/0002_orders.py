"""A person's orders (pause, retire, resync, retry, forget), and pairs no longer configured."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

Time = sa.DateTime(timezone=True)
Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

ADDED = (
    ("audience", "paused_at", Time),
    ("audience", "retired_at", Time),
    ("destination", "stopped_at", Time),
    ("rejection", "audience_id", Number),
    ("rejection", "destination_id", Number),
    ("rejection", "retry_at", Time),
    ("rejection", "retried_in", Number),
    ("rejection", "resolved_in", Number),
    ("run", "actor", sa.Text),
)
"""Columns that may be empty, so that no table is written anew."""


def upgrade() -> None:
    for table, column, type_ in ADDED:
        op.add_column(table, sa.Column(column, type_))
    op.execute(
        "UPDATE rejection SET "
        "audience_id = (SELECT audience_id FROM span WHERE span.id = span_id), "
        "destination_id = (SELECT destination_id FROM span WHERE span.id = span_id)"
    )
    op.create_index("rejection_standing", "rejection", ["audience_id", "destination_id", "user_id"])
    op.create_table(
        "gone",
        sa.Column("audience_id", Number, sa.ForeignKey("audience.id"), primary_key=True),
        sa.Column("destination_id", Number, sa.ForeignKey("destination.id"), primary_key=True),
        sa.Column("since", Time, nullable=False),
        sa.Column("released_at", Time),
    )
    op.create_table(
        "resync",
        sa.Column("audience_id", Number, sa.ForeignKey("audience.id"), primary_key=True),
        sa.Column("destination_id", Number, sa.ForeignKey("destination.id"), primary_key=True),
        sa.Column("requested_at", Time, nullable=False),
        sa.Column("span_id", Number),
    )
    op.create_table(
        "forgotten",
        sa.Column("reference", sa.Text, primary_key=True),
        sa.Column("forgotten_at", Time, nullable=False),
    )
