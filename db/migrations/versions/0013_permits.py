"""Permits: how many sandboxes run at once, over all builds and previews"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None
kind = "expand"

_COUNT_WHAT_RUNS = """
insert into permits (build_id, role, held_since)
select id, 'workspace', clock_timestamp() from builds
where closed_at is null and sandbox_id is not null and status in ('starting', 'scaffold', 'code', 'checks')
union all
select build_id, 'preview', clock_timestamp() from previews where state in ('opening', 'open')
on conflict do nothing
"""
"""Builds that work hold a permit from the start. Any that is missed here is counted by the reaper."""


def upgrade() -> None:
    op.create_table(
        "permits",
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column(
            "checked_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("held_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reclaimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("build_id", name=op.f("pk_permits")),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name=op.f("fk_permits_build_id_builds"), ondelete="CASCADE"
        ),
        sa.CheckConstraint("role in ('gate', 'preview', 'workspace')", name=op.f("ck_permits_role")),
        sa.CheckConstraint("reclaimed_at is null or role = 'preview'", name=op.f("ck_permits_reclaimed")),
    )
    op.create_table(
        "sandbox_fleet",
        sa.Column("id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column(
            "next_start_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("refused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refused_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refusals", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sandbox_fleet")),
        sa.CheckConstraint("id = 1", name=op.f("ck_sandbox_fleet_one_row")),
    )
    op.execute("insert into sandbox_fleet (id) values (1)")
    op.execute(_COUNT_WHAT_RUNS)


def downgrade() -> None:
    op.drop_table("sandbox_fleet")
    op.drop_table("permits")
