"""Images are noted before they are stored, so that an erasure finds those whose tool call never ended"""

import sqlalchemy as sa
from alembic import op

revision = "0050"
down_revision = "0049"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.create_table(
        "seen_images",
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False, comment="of the image, in hex"),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name=op.f("fk_seen_images_build_id_builds"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("build_id", "sha256", name=op.f("pk_seen_images")),
    )
    op.create_index("ix_seen_images_sha256", "seen_images", ["sha256"])


def downgrade() -> None:
    op.drop_table("seen_images")
