"""Request ids are the model server's: a gateway may give one twice, or none, and each call is settled by its claim"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.drop_constraint(op.f("uq_ledger_request_id"), "ledger", type_="unique")


def downgrade() -> None:
    op.create_unique_constraint(op.f("uq_ledger_request_id"), "ledger", ["request_id"])
