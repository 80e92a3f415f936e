"""Keep what a gate's findings could quote only in part"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.add_column(
        "gate_runs",
        sa.Column(
            "outputs",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="what the findings could quote only in part, by step",
        ),
    )


def downgrade() -> None:
    op.drop_column("gate_runs", "outputs")
