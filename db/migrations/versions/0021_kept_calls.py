"""An attempt whose run is gone says that it still makes its model call"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.add_column("ledger", sa.Column("kept_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("ledger", "kept_at")
