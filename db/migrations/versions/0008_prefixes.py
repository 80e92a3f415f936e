"""A conversation has prefixes: frozen settings, compactions, and what a call of several models cost"""

import json
import os
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0006"
branch_labels = None
depends_on = None
kind = "expand"

SETTINGS = '"thinking":{"type":"adaptive","display":"summarized"},'
"""What every version before this one sent. The column's default stays: workers of that version still insert rows."""

OLD_CAPS = {"bootstrapper": 150, "partner": 300, "cto_scale": 600}
CAPS = {"bootstrapper": 1500, "partner": 3000, "cto_scale": 6000}


def upgrade() -> None:
    op.add_column("prompts", sa.Column("covers", sa.Integer(), server_default="0", nullable=False))
    op.add_column("prompts", sa.Column("opening", sa.Text(), nullable=True))
    op.add_column("prompts", sa.Column("settings", sa.Text(), server_default=SETTINGS, nullable=False))
    op.add_column("prompts", sa.Column("betas", sa.Text(), server_default="", nullable=False))
    op.add_column("prompts", sa.Column("wants_plan", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("prompts", sa.Column("fallbacks", JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False))
    _forget_thinking()
    op.add_column("turns", sa.Column("prefix", sa.Integer(), server_default="0", nullable=False))
    op.add_column("turns", sa.Column("unreadable", sa.Integer(), server_default="0", nullable=False))
    op.add_column("turns", sa.Column("details", JSONB(), nullable=True))
    op.add_column("ledger", sa.Column("kind", sa.Text(), server_default="turn", nullable=False))
    op.add_column("ledger", sa.Column("prefix", sa.Integer(), server_default="0", nullable=False))
    op.add_column("ledger", sa.Column("iterations", JSONB(), nullable=True))
    op.create_check_constraint(op.f("ck_ledger_kind"), "ledger", "kind in ('turn', 'compaction')")
    op.create_table(
        "compactions",
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("prefix", sa.Integer(), nullable=False),
        sa.Column("covers", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("claim", sa.UUID(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("tokens_before", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("build_id", "prefix", name=op.f("pk_compactions")),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name=op.f("fk_compactions_build_id_builds"), ondelete="CASCADE"
        ),
        sa.CheckConstraint("(outcome is null) = (answered_at is null)", name=op.f("ck_compactions_answered")),
    )
    _change_caps(OLD_CAPS, CAPS)


def downgrade() -> None:
    _change_caps(CAPS, OLD_CAPS)
    op.drop_table("compactions")
    op.drop_constraint(op.f("ck_ledger_kind"), "ledger", type_="check")
    for table, columns in (
        ("ledger", ("iterations", "prefix", "kind")),
        ("turns", ("details", "unreadable", "prefix")),
        ("prompts", ("fallbacks", "wants_plan", "betas", "settings", "opening", "covers")),
    ):
        for column in columns:
            op.drop_column(table, column)


def _forget_thinking() -> None:
    """Builds with a model that MODEL_PRICES says does not think sent no setting at all."""
    prices: dict[str, Any] = json.loads(os.environ.get("MODEL_PRICES") or "{}")
    silent = [model for model, price in prices.items() if price.get("adaptive_thinking") is False]
    if silent:
        prompts, builds = (
            sa.table("prompts", sa.column("settings"), sa.column("build_id")),
            sa.table("builds", sa.column("id"), sa.column("model")),
        )
        of_silent = sa.select(builds.c.id).where(builds.c.model.in_(silent))
        op.execute("alter table prompts disable trigger user")
        op.execute(prompts.update().where(prompts.c.build_id.in_(of_silent)).values(settings=""))
        op.execute("alter table prompts enable trigger user")


def _change_caps(before: dict[str, int], after: dict[str, int]) -> None:
    """Only where an operator has not set another cap."""
    plans = sa.table("plan_tiers", sa.column("name"), sa.column("tool_call_cap"))
    for name, cap in after.items():
        op.execute(
            plans.update().where(plans.c.name == name, plans.c.tool_call_cap == before[name]).values(tool_call_cap=cap)
        )
