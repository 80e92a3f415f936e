"""Check values of the keys that encrypt what Temporal stores"""

import sqlalchemy as sa
from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.create_table(
        "payload_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column(
            "check_value",
            sa.Text(),
            nullable=False,
            comment="tells the key from another of this id; an HMAC under the key",
        ),
        sa.Column("used_since", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True, comment="since when no history needs it"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payload_keys")),
    )


def downgrade() -> None:
    op.drop_table("payload_keys")
