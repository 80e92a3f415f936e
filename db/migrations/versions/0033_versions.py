"""Builds begin with a chosen snapshot, and projects are archived

Programs of the previous version insert builds without a start: those begin with the last ready build's product.
"""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.add_column(
        "projects",
        sa.Column(
            "archived_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="since when it is left out of lists and not built",
        ),
    )
    op.add_column(
        "builds",
        sa.Column(
            "start_build_id",
            sa.UUID(),
            nullable=True,
            comment="the build with whose snapshot it begins; null: an empty workspace, or a row of an earlier version",
        ),
    )
    op.add_column(
        "builds", sa.Column("start_snapshot", sa.Integer(), nullable=True, comment="the number of that snapshot")
    )
    op.create_check_constraint(op.f("ck_builds_start"), "builds", "(start_build_id is null) = (start_snapshot is null)")
    op.create_foreign_key(
        "fk_builds_start", "builds", "snapshots", ["start_build_id", "start_snapshot"], ["build_id", "number"]
    )


def downgrade() -> None:
    op.drop_constraint("fk_builds_start", "builds", type_="foreignkey")
    op.drop_constraint(op.f("ck_builds_start"), "builds", type_="check")
    op.drop_column("builds", "start_snapshot")
    op.drop_column("builds", "start_build_id")
    op.drop_column("projects", "archived_at")
