"""Idempotency keys of the requests that create projects"""

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.add_column("projects", sa.Column("idempotency_key", sa.Text(), nullable=True))
    op.add_column("projects", sa.Column("body_hash", sa.Text(), nullable=True))
    op.create_unique_constraint(op.f("uq_projects_user_id_idempotency_key"), "projects", ["user_id", "idempotency_key"])


def downgrade() -> None:
    op.drop_constraint(op.f("uq_projects_user_id_idempotency_key"), "projects", type_="unique")
    op.drop_column("projects", "body_hash")
    op.drop_column("projects", "idempotency_key")
