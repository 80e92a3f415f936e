"""How many connections each process may open"""

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.add_column(
        "processes",
        sa.Column(
            "connections",
            sa.Integer(),
            nullable=True,
            comment="to the database at most; null: of a version that does not say",
        ),
    )


def downgrade() -> None:
    op.drop_column("processes", "connections")
