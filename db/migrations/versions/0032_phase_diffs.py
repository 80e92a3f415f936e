"""What each phase of a build has changed"""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None
kind = "expand"

_READ = "(select true from builds where builds.id = phase_diffs.build_id)"
_WRITE = (
    "(select projects.org_id = any ((select app_orgs('member'))::uuid[]) "
    "from builds join projects on projects.id = builds.project_id where builds.id = phase_diffs.build_id)"
)


def upgrade() -> None:
    op.create_table(
        "phase_diffs",
        sa.Column("build_id", sa.Uuid(), nullable=False),
        sa.Column("phase", sa.Integer(), nullable=False, comment="counts from 1"),
        sa.Column("commit", sa.Text(), nullable=False),
        sa.Column("base", sa.Text(), comment="the commit that it is compared with; null: everything is new"),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("additions", sa.Integer(), nullable=False, comment="lines"),
        sa.Column("deletions", sa.Integer(), nullable=False, comment="lines"),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name=op.f("fk_phase_diffs_build_id_builds"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("build_id", "phase", name=op.f("pk_phase_diffs")),
    )
    read, write = (f"(select app_every_row()) or ({condition})" for condition in (_READ, _WRITE))
    op.execute(f"create policy phase_diffs_select on phase_diffs for select using ({read})")
    op.execute(f"create policy phase_diffs_insert on phase_diffs for insert with check ({write})")
    op.execute(f"create policy phase_diffs_update on phase_diffs for update using ({read}) with check ({write})")
    op.execute(f"create policy phase_diffs_delete on phase_diffs for delete using ({write})")
    op.execute("alter table phase_diffs enable row level security, force row level security")


def downgrade() -> None:
    op.drop_table("phase_diffs")
