"""Operators limit what all builds together spend in a day, and switch builds off by rows"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

kind = "expand"


def upgrade() -> None:
    op.create_table(
        "limits",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=True),
        sa.Column("set_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        sa.Column("reached_on", sa.Date(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_limits")),
        sa.CheckConstraint("value is null or value >= 0", name=op.f("ck_limits_not_negative")),
        sa.CheckConstraint("name in ('fleet_day')", name=op.f("ck_limits_name")),
    )
    op.create_table(
        "switches",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), server_default="", nullable=False),
        sa.Column("off_since", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "key", name=op.f("pk_switches")),
        sa.CheckConstraint("scope in ('fleet', 'model', 'plan', 'user')", name=op.f("ck_switches_scope")),
        sa.CheckConstraint("(scope = 'fleet') = (key = '')", name=op.f("ck_switches_key")),
    )


def downgrade() -> None:
    op.drop_table("switches")
    op.drop_table("limits")
