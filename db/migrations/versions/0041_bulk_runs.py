"""Acts of operators on many builds, and what the API's role needs to change switches and limits"""

import sqlalchemy as sa
from alembic import op

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None
kind = "expand"

_EVERY = "(select app_every_row())"
BULK = ("bulk_runs", "bulk_run_builds")
SHARED = ("limits", "switches")
"""Everyone may read them. Only operators may change them: the API's role gets the privileges, and a policy decides.
The owner is not bound by it, because triggers that run as the owner read them in founders' transactions."""


def upgrade() -> None:
    op.create_table(
        "bulk_runs",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column(
            "filter", sa.Text(), nullable=False, comment="as text; which builds were chosen when the run was made"
        ),
        sa.Column("rate", sa.Integer(), nullable=False, comment="builds a second"),
        sa.Column("reason", sa.Text(), nullable=False, comment="for operators"),
        sa.Column("actor", sa.Text(), nullable=False, comment="who made it, as in the audit"),
        sa.Column("how", sa.Text(), nullable=False),
        sa.Column("credential_id", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("body_hash", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="running", nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("stopped_by", sa.Text(), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True, comment="stopped, or finished"),
        sa.CheckConstraint("act in ('cancel', 'finish', 'suspend', 'wake')", name=op.f("ck_bulk_runs_act")),
        sa.CheckConstraint(
            "how in ('api_key', 'api_token', 'cli', 'jwt', 'operator_token', 'sign_in')", name=op.f("ck_bulk_runs_how")
        ),
        sa.CheckConstraint("state in ('finished', 'running', 'stopped')", name=op.f("ck_bulk_runs_state")),
        sa.CheckConstraint("rate > 0", name=op.f("ck_bulk_runs_rate")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bulk_runs")),
        sa.UniqueConstraint("actor", "idempotency_key", name=op.f("uq_bulk_runs_actor_idempotency_key")),
    )
    op.create_index("ix_bulk_runs_running", "bulk_runs", ["created_at"], postgresql_where=sa.text("state = 'running'"))
    op.create_index("ix_bulk_runs_created_at", "bulk_runs", ["created_at", "id"])
    op.create_table(
        "bulk_run_builds",
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "decided_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="the act was found to fit, and is in the audit",
        ),
        sa.Column("why", sa.Text(), nullable=True, comment="it was skipped or has failed"),
        sa.Column("at", sa.DateTime(timezone=True), nullable=True, comment="of the last attempt"),
        sa.CheckConstraint("state in ('done', 'failed', 'pending', 'skipped')", name=op.f("ck_bulk_run_builds_state")),
        sa.ForeignKeyConstraint(
            ["run_id"], ["bulk_runs.id"], name=op.f("fk_bulk_run_builds_run_id_bulk_runs"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name=op.f("fk_bulk_run_builds_build_id_builds"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "build_id", name=op.f("pk_bulk_run_builds")),
    )
    op.create_index(op.f("ix_bulk_run_builds_build_id"), "bulk_run_builds", ["build_id"])
    op.create_index("ix_bulk_run_builds_run_id_position", "bulk_run_builds", ["run_id", "position"], unique=True)
    op.create_index(
        "ix_bulk_run_builds_pending",
        "bulk_run_builds",
        ["run_id", "position"],
        postgresql_where=sa.text("state = 'pending'"),
    )
    for table in BULK:
        op.execute(f"create policy {table}_all on {table} using ({_EVERY}) with check ({_EVERY})")
        op.execute(f"alter table {table} enable row level security, force row level security")
    for table in SHARED:
        op.execute(f"create policy {table}_select on {table} for select using (true)")
        op.execute(f"create policy {table}_insert on {table} for insert with check ({_EVERY})")
        op.execute(f"create policy {table}_update on {table} for update using ({_EVERY}) with check ({_EVERY})")
        op.execute(f"create policy {table}_delete on {table} for delete using ({_EVERY})")
        op.execute(f"alter table {table} enable row level security")
    op.execute(f"create policy doomed_objects_all on doomed_objects using ({_EVERY}) with check ({_EVERY})")
    op.execute("alter table doomed_objects enable row level security")


def downgrade() -> None:
    op.execute("drop policy doomed_objects_all on doomed_objects")
    op.execute("alter table doomed_objects disable row level security")
    for table in SHARED:
        for command in ("select", "insert", "update", "delete"):
            op.execute(f"drop policy {table}_{command} on {table}")
        op.execute(f"alter table {table} disable row level security")
    op.drop_table("bulk_run_builds")
    op.drop_table("bulk_runs")
