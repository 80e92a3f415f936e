"""The user's day, top-ups, places in the queue, and what a build does when its budget is used up"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.create_table(
        "user_days",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column(
            "from_plan", sa.BigInteger(), nullable=True, comment="the day's share of the cycle; null is unlimited"
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("from_plan is null or from_plan >= 0", name=op.f("ck_user_days_from_plan")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_user_days_user_id_users")),
        sa.PrimaryKeyConstraint("user_id", "day", name=op.f("pk_user_days")),
    )
    op.create_table(
        "top_ups",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False, comment="microdollars"),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("amount > 0", name=op.f("ck_top_ups_amount")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_top_ups_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_top_ups")),
        sa.UniqueConstraint("user_id", "idempotency_key", name=op.f("uq_top_ups_user_id_idempotency_key")),
    )
    op.create_index("ix_top_ups_user_day", "top_ups", ["user_id", "day"])
    op.add_column(
        "users",
        sa.Column(
            "money_changed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="top-up, plan change or release from suspension; builds that wait since before are woken",
        ),
    )
    op.add_column(
        "builds",
        sa.Column(
            "sleep_policy",
            sa.Text(),
            server_default="sleep",
            nullable=False,
            comment="when the budget is used up",
        ),
    )
    op.add_column(
        "builds",
        sa.Column(
            "max_nights",
            sa.Integer(),
            server_default="30",
            nullable=False,
            comment="nights asleep, then its founder is asked",
        ),
    )
    op.add_column(
        "builds",
        sa.Column(
            "status_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when the status was written",
        ),
    )
    op.add_column(
        "builds",
        sa.Column(
            "admitted_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="holds one of its user's places, until it is closed",
        ),
    )
    op.add_column(
        "builds",
        sa.Column(
            "nudged_at", sa.DateTime(timezone=True), nullable=True, comment="when the reaper last told it of money"
        ),
    )
    # What runs already holds a place, also beyond the plan's number: nothing is taken from it.
    op.execute("update builds set admitted_at = started_at where started_at is not null")
    op.create_index(
        "ix_builds_open_user", "builds", ["user_id", "created_at"], postgresql_where=sa.text("closed_at is null")
    )
    op.create_check_constraint(op.f("ck_builds_sleep_policy"), "builds", "sleep_policy in ('sleep', 'stop')")
    op.create_check_constraint(op.f("ck_builds_max_nights"), "builds", "max_nights between 0 and 1000")


def downgrade() -> None:
    op.drop_constraint(op.f("ck_builds_max_nights"), "builds")
    op.drop_constraint(op.f("ck_builds_sleep_policy"), "builds")
    op.drop_index("ix_builds_open_user", "builds")
    for column in ("nudged_at", "admitted_at", "status_at", "max_nights", "sleep_policy"):
        op.drop_column("builds", column)
    op.drop_column("users", "money_changed_at")
    op.drop_table("top_ups")
    op.drop_table("user_days")
