"""Exports that workflows write into the object store"""

import sqlalchemy as sa
from alembic import op

revision = "0048"
down_revision = "0047"
branch_labels = None
depends_on = None
kind = "expand"


def _time(name: str, comment: str | None = None) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=True, comment=comment)


def upgrade() -> None:
    op.create_table(
        "exports",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False, comment="who may download it"),
        sa.Column("project_id", sa.UUID(), nullable=True, comment="null: the user's account"),
        sa.Column("requested_by", sa.Text(), nullable=False, comment="a user's id, or `operator`"),
        sa.Column("requested_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        _time("started_at", "its workflow is known to have been started"),
        sa.Column("claim", sa.UUID(), nullable=True, comment="of the attempt that writes the file"),
        _time("stored_at"),
        sa.Column("object_key", sa.Text(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True, comment="of the file"),
        _time("expires_at", "when the file is to be deleted"),
        _time("deleted_at", "when the file was deleted"),
        _time("failed_at"),
        sa.Column("problem", sa.Text(), nullable=True, comment="why it failed, for the user"),
        sa.CheckConstraint(
            "(stored_at is null) = (object_key is null or bytes is null or sha256 is null or expires_at is null)",
            name=op.f("ck_exports_stored"),
        ),
        sa.CheckConstraint("stored_at is null or failed_at is null", name=op.f("ck_exports_ended")),
        sa.CheckConstraint("(failed_at is null) = (problem is null)", name=op.f("ck_exports_failed")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_exports_user_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_exports_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exports")),
        sa.UniqueConstraint("user_id", "idempotency_key", name=op.f("uq_exports_user_id_idempotency_key")),
    )
    op.create_index(op.f("ix_exports_project_id"), "exports", ["project_id"])
    is_open = "stored_at is null and failed_at is null"
    op.create_index(
        "uq_exports_open_project",
        "exports",
        ["user_id", "project_id"],
        unique=True,
        postgresql_where=sa.text(f"{is_open} and project_id is not null"),
    )
    op.create_index(
        "uq_exports_open_account",
        "exports",
        ["user_id"],
        unique=True,
        postgresql_where=sa.text(f"{is_open} and project_id is null"),
    )
    op.create_index("ix_exports_expires", "exports", ["expires_at"], postgresql_where=sa.text("deleted_at is null"))
    of_project = "project_id is null or (select true from projects where projects.id = exports.project_id)"
    own = f"app_every_row() or (user_id = app_user_id() and ({of_project}))"
    op.execute(f"create policy exports_select on exports for select using ({own})")
    op.execute(f"create policy exports_insert on exports for insert with check ({own})")
    op.execute(f"create policy exports_update on exports for update using ({own}) with check ({own})")
    op.execute("alter table exports enable row level security, force row level security")


def downgrade() -> None:
    op.drop_table("exports")
