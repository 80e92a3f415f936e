"""lost calls and gate claims"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.add_column(
        "tool_calls",
        sa.Column(
            "lost",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="the sandbox was lost before or during it; its outcome is unknown",
        ),
    )
    op.add_column(
        "gate_runs",
        sa.Column("claim", sa.UUID(), nullable=True, comment="of the attempt that may write the outcome"),
    )


def downgrade() -> None:
    op.drop_column("gate_runs", "claim")
    op.drop_column("tool_calls", "lost")
