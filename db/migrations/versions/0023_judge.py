"""The judge of the evidence gate: its calls in the ledger, and its judgement with the gate's run"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None
kind = "expand"

_KINDS = "kind in ('turn', 'compaction', 'judge')"


def upgrade() -> None:
    op.drop_constraint(op.f("ck_ledger_kind"), "ledger", type_="check")
    op.create_check_constraint(op.f("ck_ledger_kind"), "ledger", _KINDS)
    op.add_column(
        "gate_runs",
        sa.Column(
            "judge_claim", sa.Uuid(), nullable=True, comment="of the attempt that calls the judge, in the ledger"
        ),
    )
    op.add_column(
        "gate_runs",
        sa.Column("judge_run_id", sa.Text(), nullable=True, comment="the workflow's run of that attempt"),
    )
    op.add_column(
        "gate_runs",
        sa.Column(
            "judgement",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="how the judge's part ended; null until then",
        ),
    )


def downgrade() -> None:
    for column in ("judgement", "judge_run_id", "judge_claim"):
        op.drop_column("gate_runs", column)
    op.execute("update ledger set kind = 'turn' where kind = 'judge'")
    op.drop_constraint(op.f("ck_ledger_kind"), "ledger", type_="check")
    op.create_check_constraint(op.f("ck_ledger_kind"), "ledger", "kind in ('turn', 'compaction')")
