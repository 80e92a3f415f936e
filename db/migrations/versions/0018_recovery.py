"""A build's state follows from its rows: what the workflow counts is stored with each turn"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.add_column(
        "turns",
        sa.Column(
            "counters",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="what the workflow had counted before it",
        ),
    )
    op.add_column(
        "builds",
        sa.Column(
            "lost_minutes",
            sa.Integer(),
            nullable=True,
            comment="of its record, with a restore of the database, until its agent is told",
        ),
    )


def downgrade() -> None:
    op.drop_column("builds", "lost_minutes")
    op.drop_column("turns", "counters")
