"""Questions that the agent asks by itself and does not wait for"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.add_column(
        "questions",
        sa.Column("tool_use_id", sa.Text(), comment="the call by which the agent asked; null: the build waits for it"),
    )
    op.add_column(
        "questions", sa.Column("default_option", sa.Text(), comment="what the agent does until it is answered")
    )
    op.create_unique_constraint("uq_questions_call", "questions", ["build_id", "tool_use_id"])
    op.create_check_constraint(
        op.f("ck_questions_by_agent"), "questions", "(tool_use_id is null) = (default_option is null)"
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_questions_by_agent"), "questions", type_="check")
    op.drop_constraint("uq_questions_call", "questions")
    op.drop_column("questions", "default_option")
    op.drop_column("questions", "tool_use_id")
