"""Snapshots of histories that the agent has overwritten stay"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.add_column(
        "snapshots",
        sa.Column(
            "kept",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="the last one of a history that the agent has overwritten since",
        ),
    )
    op.add_column(
        "snapshots",
        sa.Column(
            "replaces",
            sa.Integer(),
            nullable=True,
            comment="number of the last snapshot of the history that this one's does not descend from",
        ),
    )


def downgrade() -> None:
    op.drop_column("snapshots", "replaces")
    op.drop_column("snapshots", "kept")
