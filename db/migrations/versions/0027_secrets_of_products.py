"""Secrets that founders set for their products, encrypted; and the log of a preview's last start"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.create_table(
        "project_secrets",
        sa.Column("project_id", sa.UUID(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False, comment="the environment variable that the product reads it from"),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False, comment="the user of the request"),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_project_secrets_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "name", name=op.f("pk_project_secrets")),
    )
    op.create_index("ix_project_secrets_key_id", "project_secrets", ["key_id"])
    op.add_column(
        "builds",
        sa.Column(
            "known_secrets",
            postgresql.JSONB(),
            nullable=True,
            comment="names of the project's secrets that the agent was told last",
        ),
    )
    op.add_column(
        "previews",
        sa.Column("log", sa.Text(), nullable=True, comment="the end of the last start's output, for the founder only"),
    )


def downgrade() -> None:
    op.drop_column("previews", "log")
    op.drop_column("builds", "known_secrets")
    op.drop_table("project_secrets")
