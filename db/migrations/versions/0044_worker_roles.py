"""Which roles a worker has, so that work which no worker takes is seen"""

import sqlalchemy as sa
from alembic import op

revision = "0044"
down_revision = "0043"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.add_column(
        "processes",
        sa.Column(
            "roles",
            sa.Text(),
            nullable=True,
            comment="whose task queues a worker polls, with commas; null: the role build",
        ),
    )


def downgrade() -> None:
    op.drop_column("processes", "roles")
