"""Token buckets of models, which all workers share"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.create_table(
        "model_buckets",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("per_minute", sa.BigInteger(), nullable=True, comment="null: no limit"),
        sa.Column("level", sa.Double(), server_default="0", nullable=False),
        sa.Column("refilled_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column(
            "learned",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="the API has named its limits, or has answered without naming any",
        ),
        sa.Column(
            "blocked_until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="the API has refused a call until then",
        ),
        sa.PrimaryKeyConstraint("model", "kind", name=op.f("pk_model_buckets")),
        sa.CheckConstraint("kind in ('requests', 'input', 'output')", name=op.f("ck_model_buckets_kind")),
        sa.CheckConstraint("per_minute > 0", name=op.f("ck_model_buckets_per_minute")),
    )


def downgrade() -> None:
    op.drop_table("model_buckets")
