"""What a founder says to a build: messages, questions with their answers, and restores"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.add_column(
        "builds",
        sa.Column(
            "gate_passed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="the evidence gate is passed, and from then on nothing that is said can reach the agent",
        ),
    )
    op.create_table(
        "questions",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("tried", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="what was tried, in order"),
        sa.Column("options", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "closed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="the build no longer waits for it, answered or not",
        ),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name=op.f("fk_questions_build_id_builds"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_questions")),
    )
    op.create_index(
        "uq_questions_open_build",
        "questions",
        ["build_id"],
        unique=True,
        postgresql_where=sa.text("closed_at is null"),
    )
    op.create_index(op.f("ix_questions_build_id"), "questions", ["build_id"])
    op.create_table(
        "founder_messages",
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column(
            "number", sa.Integer(), nullable=False, comment="the build's own sequence: commit order is number order"
        ),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("question_id", sa.UUID(), nullable=True, comment="the question that it answers"),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column(
            "turn", sa.Integer(), nullable=True, comment="the turn in whose user message it stands; null: unread"
        ),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "nudged_at", sa.DateTime(timezone=True), nullable=True, comment="when the reaper repeated its announcement"
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("(turn is null) = (read_at is null)", name=op.f("ck_founder_messages_read")),
        sa.CheckConstraint("length(text) between 1 and 20000", name=op.f("ck_founder_messages_text_length")),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name=op.f("fk_founder_messages_build_id_builds"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["question_id"],
            ["questions.id"],
            name=op.f("fk_founder_messages_question_id_questions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("build_id", "number", name=op.f("pk_founder_messages")),
        sa.UniqueConstraint("build_id", "idempotency_key", name=op.f("uq_founder_messages_build_id_idempotency_key")),
        sa.UniqueConstraint("question_id", name=op.f("uq_founder_messages_question_id")),
    )
    op.create_index(
        "ix_founder_messages_unread", "founder_messages", ["created_at"], postgresql_where=sa.text("turn is null")
    )
    op.create_table(
        "restores",
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="the build's own sequence"),
        sa.Column("snapshot_number", sa.Integer(), nullable=True),
        sa.Column("commit", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), server_default="requested", nullable=False),
        sa.Column("claim", sa.UUID(), nullable=True, comment="of the attempt that may change the workspace"),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("kept_as", sa.Integer(), nullable=True, comment="the snapshot of what was there before"),
        sa.Column("stored_as", sa.Integer(), nullable=True, comment="the snapshot of what is there since"),
        sa.Column("turn", sa.Integer(), nullable=True, comment="the turn in whose user message the agent is told"),
        sa.Column(
            "nudged_at", sa.DateTime(timezone=True), nullable=True, comment="when the reaper repeated its announcement"
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(snapshot_number is null) <> (commit is null)", name=op.f("ck_restores_target")),
        sa.CheckConstraint("state in ('done', 'failed', 'requested')", name=op.f("ck_restores_state")),
        sa.CheckConstraint("(state = 'requested') = (ended_at is null)", name=op.f("ck_restores_ended")),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name=op.f("fk_restores_build_id_builds"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("build_id", "number", name=op.f("pk_restores")),
        sa.UniqueConstraint("build_id", "idempotency_key", name=op.f("uq_restores_build_id_idempotency_key")),
    )
    op.create_index(
        "uq_restores_requested_build",
        "restores",
        ["build_id"],
        unique=True,
        postgresql_where=sa.text("state = 'requested'"),
    )


def downgrade() -> None:
    op.drop_table("restores")
    op.drop_table("founder_messages")
    op.drop_table("questions")
    op.drop_column("builds", "gate_passed_at")
