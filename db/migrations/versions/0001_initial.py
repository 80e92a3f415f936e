"""initial"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None
kind = "expand"


TABLES = [
    "plan_tiers",
    "users",
    "projects",
    "artifacts",
    "understanding_sessions",
    "builds",
    "business_events",
    "events",
    "gate_runs",
    "ledger",
    "messages",
    "previews",
    "prompts",
    "snapshots",
    "tool_calls",
    "turns",
]


def upgrade() -> None:
    op.create_table(
        "plan_tiers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("default_models", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="model by role"),
        sa.Column(
            "cycle_budget", sa.BigInteger(), nullable=True, comment="microdollars a billing cycle; null is unlimited"
        ),
        sa.Column("concurrent_builds", sa.Integer(), nullable=False),
        sa.Column("tool_call_cap", sa.Integer(), nullable=False, comment="tool calls a build"),
        sa.CheckConstraint("concurrent_builds > 0", name=op.f("ck_plan_tiers_concurrent")),
        sa.CheckConstraint("cycle_budget is null or cycle_budget >= 0", name=op.f("ck_plan_tiers_budget")),
        sa.CheckConstraint("tool_call_cap > 0", name=op.f("ck_plan_tiers_cap")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_plan_tiers")),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), server_default="bootstrapper", nullable=False),
        sa.Column(
            "model_overrides",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
            comment="model by role",
        ),
        sa.Column("suspended", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("renewal_day", sa.SmallInteger(), server_default="1", nullable=False, comment="day of the month"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("length(id) between 1 and 200", name=op.f("ck_users_id_length")),
        sa.CheckConstraint("renewal_day between 1 and 31", name=op.f("ck_users_renewal_day")),
        sa.ForeignKeyConstraint(["plan"], ["plan_tiers.name"], name=op.f("fk_users_plan")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="draft", nullable=False),
        sa.Column("last_build_version", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("status in ('draft', 'mvp_built')", name=op.f("ck_projects_status")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_projects_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
    )
    op.create_index(op.f("ix_projects_user_id"), "projects", ["user_id"], unique=False)
    op.create_table(
        "artifacts",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("project_id", sa.UUID(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_artifacts_version")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_artifacts_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifacts")),
        sa.UniqueConstraint("project_id", "type", name=op.f("uq_artifacts_project_id_type")),
    )
    op.create_table(
        "understanding_sessions",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("project_id", sa.UUID(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("questions", sa.JSON(), nullable=False),
        sa.Column("answers", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_understanding_sessions_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_understanding_sessions")),
        sa.UniqueConstraint("project_id", "number", name=op.f("uq_understanding_sessions_project_id_number")),
    )
    op.create_table(
        "builds",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("project_id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("goal", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("body_hash", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="queued", nullable=False),
        sa.Column("status_seq", sa.Integer(), server_default="0", nullable=False),
        sa.Column("waiting_for", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True, comment="why it sleeps, waits or failed; for the founder"),
        sa.Column("wakes_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("brief_version", sa.Integer(), nullable=True),
        sa.Column("session_id", sa.UUID(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("model_label", sa.Text(), nullable=True, comment="what people are told that the model is"),
        sa.Column("sandbox_id", sa.Text(), nullable=True),
        sa.Column("preview_url", sa.Text(), nullable=True),
        sa.Column("build_version", sa.Integer(), nullable=True),
        sa.Column("workspace_path", sa.Text(), nullable=True),
        sa.Column("phases_completed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_event_id", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="the workflow is known to have been started",
        ),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(status = 'needs_input') = (waiting_for is not null)", name=op.f("ck_builds_waits")),
        sa.CheckConstraint(
            "(status in ('cancelled', 'failed', 'ready')) = (closed_at is not null)", name=op.f("ck_builds_closed")
        ),
        sa.CheckConstraint(
            "status in ('cancelled', 'checks', 'code', 'failed', 'needs_input', 'queued', 'ready', 'scaffold', 'sleeping', 'starting')",
            name=op.f("ck_builds_status"),
        ),
        sa.CheckConstraint(
            "waiting_for is null or waiting_for in ('founder', 'kill_switch', 'operator', 'store')",
            name=op.f("ck_builds_waiting_for"),
        ),
        sa.CheckConstraint("length(goal) between 1 and 20000", name=op.f("ck_builds_goal_length")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_builds_project_id")),
        sa.ForeignKeyConstraint(
            ["session_id"], ["understanding_sessions.id"], name=op.f("fk_builds_session_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_builds_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_builds")),
        sa.UniqueConstraint("project_id", "build_version", name=op.f("uq_builds_project_id_build_version")),
        sa.UniqueConstraint("user_id", "idempotency_key", name=op.f("uq_builds_user_id_idempotency_key")),
    )
    op.create_index(op.f("ix_builds_project_id"), "builds", ["project_id"], unique=False)
    op.create_index(
        "ix_builds_unstarted",
        "builds",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("started_at is null and closed_at is null"),
    )
    op.create_index(
        "uq_builds_open_project", "builds", ["project_id"], unique=True, postgresql_where=sa.text("closed_at is null")
    )
    op.create_table(
        "business_events",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("project_id", sa.UUID(), nullable=False),
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name=op.f("fk_business_events_build_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_business_events_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_business_events")),
        sa.UniqueConstraint("build_id", "type", name=op.f("uq_business_events_build_id_type")),
    )
    op.create_table(
        "events",
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=True),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name=op.f("fk_events_build_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("build_id", "id", name=op.f("pk_events")),
    )
    op.create_table(
        "gate_runs",
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("snapshot_number", sa.Integer(), nullable=False),
        sa.Column("sandbox_id", sa.Text(), nullable=True),
        sa.Column("findings", postgresql.JSONB(astext_type=sa.Text()), nullable=True, comment="null while it runs"),
        sa.Column("tests_run", sa.Integer(), nullable=True),
        sa.Column(
            "screenshots",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
            comment="S3 key by viewport",
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(findings is null) = (ended_at is null)", name=op.f("ck_gate_runs_ended")),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name=op.f("fk_gate_runs_build_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("build_id", "number", name=op.f("pk_gate_runs")),
    )
    op.create_table(
        "ledger",
        sa.Column("id", sa.UUID(), nullable=False, comment="the claim of the attempt that made the call"),
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False, comment="UTC day of the attempt's start"),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="open", nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True, comment="the model server's"),
        sa.Column("input_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cache_write_5m_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cache_write_1h_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cache_read_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cost", sa.BigInteger(), server_default="0", nullable=False, comment="microdollars"),
        sa.Column("opened_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'open') = (closed_at is null)", name=op.f("ck_ledger_closed")),
        sa.CheckConstraint("state in ('estimated', 'open', 'released', 'settled')", name=op.f("ck_ledger_state")),
        sa.CheckConstraint(
            "least(cost, input_tokens, cache_write_5m_tokens, cache_write_1h_tokens, cache_read_tokens, output_tokens) >= 0",
            name=op.f("ck_ledger_not_negative"),
        ),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name=op.f("fk_ledger_build_id")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_ledger_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger")),
        sa.UniqueConstraint("request_id", name=op.f("uq_ledger_request_id")),
    )
    op.create_index("ix_ledger_build", "ledger", ["build_id", "turn"], unique=False)
    op.create_index("ix_ledger_user_day", "ledger", ["user_id", "day"], unique=False)
    op.create_table(
        "messages",
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("role in ('assistant', 'user')", name=op.f("ck_messages_role")),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name=op.f("fk_messages_build_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("build_id", "turn", "role", name=op.f("pk_messages")),
    )
    op.create_table(
        "previews",
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("sandbox_id", sa.Text(), nullable=True),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state in ('closed', 'failed', 'open', 'opening')", name=op.f("ck_previews_state")),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name=op.f("fk_previews_build_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("build_id", name=op.f("pk_previews")),
    )
    op.create_table(
        "prompts",
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("prefix", sa.Integer(), server_default="0", nullable=False),
        sa.Column("system", sa.Text(), nullable=False),
        sa.Column("tools", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name=op.f("fk_prompts_build_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("build_id", "prefix", name=op.f("pk_prompts")),
    )
    op.create_table(
        "snapshots",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("project_id", sa.UUID(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), server_default="taking", nullable=False),
        sa.Column("claim", sa.UUID(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False, comment="phase, sleep, gate, end"),
        sa.Column(
            "final",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="a ready build's last one, kept",
        ),
        sa.Column("archive_key", sa.Text(), nullable=False),
        sa.Column("manifest_key", sa.Text(), nullable=False),
        sa.Column("archive_bytes", sa.BigInteger(), nullable=True),
        sa.Column("archive_sha256", sa.Text(), nullable=True),
        sa.Column("manifest_sha256", sa.Text(), nullable=True),
        sa.Column("files", sa.Integer(), nullable=True),
        sa.Column("commit", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state <> 'stored' or (archive_sha256 is not null and manifest_sha256 is not null and stored_at is not null)",
            name=op.f("ck_snapshots_stored"),
        ),
        sa.CheckConstraint("state in ('deleted', 'failed', 'stored', 'taking')", name=op.f("ck_snapshots_state")),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name=op.f("fk_snapshots_build_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_snapshots_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snapshots")),
        sa.UniqueConstraint("build_id", "number", name=op.f("uq_snapshots_build_id_number")),
    )
    op.create_index(op.f("ix_snapshots_project_id"), "snapshots", ["project_id"], unique=False)
    op.create_table(
        "tool_calls",
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("tool_use_id", sa.Text(), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="requested", nullable=False),
        sa.Column("claim", sa.UUID(), nullable=True),
        sa.Column("sandbox_id", sa.Text(), nullable=True),
        sa.Column("boot", sa.Text(), nullable=True),
        sa.Column("is_error", sa.Boolean(), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("commit", sa.Text(), nullable=True, comment="the workspace's HEAD when this call changed it"),
        sa.Column("intended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'done') = (result is not null and is_error is not null)", name=op.f("ck_tool_calls_result")
        ),
        sa.CheckConstraint(
            "state <> 'intended' or (claim is not null and sandbox_id is not null)", name=op.f("ck_tool_calls_intent")
        ),
        sa.CheckConstraint("state in ('done', 'intended', 'requested')", name=op.f("ck_tool_calls_state")),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name=op.f("fk_tool_calls_build_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("build_id", "tool_use_id", name=op.f("pk_tool_calls")),
        sa.UniqueConstraint("build_id", "turn", "position", name=op.f("uq_tool_calls_build_id_turn_position")),
    )
    op.create_table(
        "turns",
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("claim", sa.UUID(), nullable=False),
        sa.Column(
            "outcome", sa.Text(), nullable=True, comment="stop reason of the stored answer; null while unanswered"
        ),
        sa.Column("claimed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(outcome is null) = (answered_at is null)", name=op.f("ck_turns_answered")),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name=op.f("fk_turns_build_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("build_id", "number", name=op.f("pk_turns")),
    )
    op.execute(
        """
        create function refuse_change() returns trigger language plpgsql as $$
        begin
            raise exception 'rows of % are never changed: what was sent to the model must stay as it was', tg_table_name;
        end $$
        """
    )
    for table in ("messages", "prompts"):
        op.execute(
            f"create trigger {table}_append_only before update or delete on {table} "
            "for each row execute function refuse_change()"
        )


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)
    op.execute("drop function refuse_change()")
