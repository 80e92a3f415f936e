"""Formats have versions, and processes say which they read, so that one that is too old refuses to work"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    formats = op.create_table(
        "formats",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("written", sa.Integer(), nullable=False),
        sa.Column("readable_from", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_formats")),
        sa.CheckConstraint("readable_from between 0 and written", name=op.f("ck_formats_versions")),
    )
    op.create_table(
        "processes",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("reads", JSONB(), nullable=False, comment="version by format"),
        sa.Column("writes", JSONB(), nullable=False, comment="version by format"),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_processes")),
        sa.CheckConstraint("role in ('api', 'worker')", name=op.f("ck_processes_role")),
    )
    first = [{"name": name, "written": 1, "readable_from": 1} for name in ("conversation", "snapshot", "ledger")]
    op.bulk_insert(formats, first)


def downgrade() -> None:
    op.drop_table("processes")
    op.drop_table("formats")
