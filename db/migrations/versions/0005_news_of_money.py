"""What a build was told of money: of which change, no longer when"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
kind = "expand"

_WHEN = "when the reaper last told it of money"
_OF_WHAT = "the last change of money that it was told of, as in users.money_changed_at"


def upgrade() -> None:
    op.alter_column(
        "builds", "nudged_at", existing_type=sa.DateTime(timezone=True), comment=_OF_WHAT, existing_comment=_WHEN
    )
    op.alter_column(
        "users",
        "money_changed_at",
        existing_type=sa.DateTime(timezone=True),
        comment="top-up, change of plan or of standing; builds that wait and were not told of it are told",
        existing_comment="top-up, plan change or release from suspension; builds that wait since before are woken",
    )


def downgrade() -> None:
    op.alter_column(
        "builds", "nudged_at", existing_type=sa.DateTime(timezone=True), comment=_WHEN, existing_comment=_OF_WHAT
    )
    op.alter_column(
        "users",
        "money_changed_at",
        existing_type=sa.DateTime(timezone=True),
        comment="top-up, plan change or release from suspension; builds that wait since before are woken",
        existing_comment="top-up, change of plan or of standing; builds that wait and were not told of it are told",
    )
