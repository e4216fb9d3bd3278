"""What each lane reserved of a destination's daily quota before it sent anything."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "quota",
        sa.Column("destination_id", Number, sa.ForeignKey("destination.id"), primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("lane", sa.Text, primary_key=True),
        sa.Column("reserved", Number, nullable=False),
    )
