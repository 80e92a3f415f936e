"""Indexes for the pages of operators"""

from alembic import op

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.create_index("ix_builds_created_at", "builds", ["created_at", "id"])
    op.create_index("ix_user_days_day", "user_days", ["day"])


def downgrade() -> None:
    op.drop_index("ix_user_days_day", "user_days")
    op.drop_index("ix_builds_created_at", "builds")
