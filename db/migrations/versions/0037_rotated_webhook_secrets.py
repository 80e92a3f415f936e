"""The secret of a webhook before its last rotation, which signs its messages too for a while"""

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.add_column(
        "webhooks",
        sa.Column("old_ciphertext", sa.LargeBinary(), nullable=True, comment="the secret before the last rotation"),
    )
    op.add_column("webhooks", sa.Column("old_key_id", sa.Text(), nullable=True))
    op.add_column(
        "webhooks",
        sa.Column(
            "old_until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="the secret before the last rotation signs until then",
        ),
    )


def downgrade() -> None:
    for column in ("old_until", "old_key_id", "old_ciphertext"):
        op.drop_column("webhooks", column)
