"""Who users are among a destination's own people, and how far these are listed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
UserId = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
UtcTime = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "contact",
        _destination(),
        sa.Column("user_id", UserId, primary_key=True),
        sa.Column("people_id", sa.Text),
        sa.Column("email", sa.Text),
        sa.Column("as_of", UtcTime, nullable=False),
        sa.Column("profile", sa.Text, nullable=False),
    )
    op.create_index("contact_email", "contact", ["destination_id", "email"])
    op.create_table(
        "person",
        _destination(),
        sa.Column("reference", sa.Text, primary_key=True),
        sa.Column("people_id", sa.Text, nullable=False),
        sa.Column("profile", sa.Text, nullable=False),
    )
    op.create_table(
        "listing",
        _destination(),
        sa.Column("began_at", UtcTime, nullable=False),
        sa.Column("page", sa.Integer, nullable=False),
        sa.Column("is_complete", sa.Boolean, nullable=False),
    )
    op.add_column("destination", sa.Column("website_id", sa.Text))
    op.create_index("rejection_user", "rejection", ["destination_id", "user_id"])


def _destination() -> sa.Column[int]:
    return sa.Column("destination_id", Number, sa.ForeignKey("destination.id"), primary_key=True)
