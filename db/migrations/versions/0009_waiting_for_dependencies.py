"""Builds wait for dependencies: a status of their own, and what is known of each dependency"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
kind = "expand"

_STATUSES = (
    "status in ('cancelled', 'checks', 'code', 'failed', 'needs_input', 'queued', 'ready', 'scaffold', 'sleeping', "
    "'starting')"
)
_STATUSES_WITH_WAITING = (
    "status in ('cancelled', 'checks', 'code', 'failed', 'needs_input', 'queued', 'ready', 'scaffold', 'sleeping', "
    "'starting', 'waiting')"
)
_DEPENDENCIES = "in ('capacity', 'model', 'sandbox', 'store')"


def upgrade() -> None:
    op.add_column(
        "builds", sa.Column("dependency", sa.Text(), nullable=True, comment="what a `waiting` build waits for")
    )
    op.drop_constraint(op.f("ck_builds_status"), "builds")
    op.create_check_constraint(op.f("ck_builds_status"), "builds", _STATUSES_WITH_WAITING)
    op.create_check_constraint(
        op.f("ck_builds_dependency"), "builds", f"dependency is null or dependency {_DEPENDENCIES}"
    )
    op.create_check_constraint(
        op.f("ck_builds_waits_for_dependency"), "builds", "(status = 'waiting') = (dependency is not null)"
    )
    op.create_table(
        "dependencies",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="up", nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "failures",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="probes in a row without an answer",
        ),
        sa.Column("next_probe_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True, comment="the last error, for operators"),
        sa.CheckConstraint(f"name {_DEPENDENCIES}", name=op.f("ck_dependencies_name")),
        sa.CheckConstraint("state in ('down', 'half_open', 'up')", name=op.f("ck_dependencies_state")),
        sa.CheckConstraint("failures >= 0", name=op.f("ck_dependencies_failures")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_dependencies")),
    )


def downgrade() -> None:
    op.drop_table("dependencies")
    op.execute(
        "update builds set status = 'needs_input', waiting_for = 'operator', dependency = null where status = 'waiting'"
    )
    op.drop_constraint(op.f("ck_builds_waits_for_dependency"), "builds")
    op.drop_constraint(op.f("ck_builds_dependency"), "builds")
    op.drop_constraint(op.f("ck_builds_status"), "builds")
    op.create_check_constraint(op.f("ck_builds_status"), "builds", _STATUSES)
    op.drop_column("builds", "dependency")
