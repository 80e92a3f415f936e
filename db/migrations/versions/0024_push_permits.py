"""The permits of pushes: a push has a sandbox of its own for a few minutes, whatever the build's other ones do"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.create_table(
        "push_permits",
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("claim", sa.UUID(), nullable=False, comment="names the request that holds it"),
        sa.Column(
            "expires_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="it no longer counts then, even if its process was killed",
        ),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name=op.f("fk_push_permits_build_id_builds"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("build_id", name=op.f("pk_push_permits")),
    )


def downgrade() -> None:
    op.drop_table("push_permits")
