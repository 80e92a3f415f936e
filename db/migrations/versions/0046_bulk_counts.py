"""Counts of finished bulk runs, kept on their rows, and the act that lifts suspensions"""

import sqlalchemy as sa
from alembic import op

revision = "0046"
down_revision = "0045"
branch_labels = None
depends_on = None
kind = "expand"

_ACT = "ck_bulk_runs_act"


def upgrade() -> None:
    comments = {"done": "builds, when it finished; as the next two", "skipped": None, "failed": None}
    for name, comment in comments.items():
        op.add_column("bulk_runs", sa.Column(name, sa.Integer(), nullable=True, comment=comment))
    op.add_column(
        "bulk_runs",
        sa.Column(
            "counted_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="ended_at of the end at which they were counted",
        ),
    )
    op.execute(
        """
        update bulk_runs set done = counted.done, skipped = counted.skipped, failed = counted.failed, counted_at = ended_at
        from (
            select run_id, count(*) filter (where state = 'done') as done,
                count(*) filter (where state = 'skipped') as skipped, count(*) filter (where state = 'failed') as failed
            from bulk_run_builds group by run_id
        ) as counted
        where counted.run_id = bulk_runs.id and bulk_runs.state = 'finished'
        """
    )
    op.drop_constraint(op.f(_ACT), "bulk_runs")
    op.create_check_constraint(op.f(_ACT), "bulk_runs", "act in ('cancel', 'finish', 'suspend', 'unsuspend', 'wake')")


def downgrade() -> None:
    op.execute("delete from bulk_runs where act = 'unsuspend'")
    op.drop_constraint(op.f(_ACT), "bulk_runs")
    op.create_check_constraint(op.f(_ACT), "bulk_runs", "act in ('cancel', 'finish', 'suspend', 'wake')")
    for name in ("counted_at", "failed", "skipped", "done"):
        op.drop_column("bulk_runs", name)
