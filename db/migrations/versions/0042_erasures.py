"""Erasures: rows that are never changed may be deleted within one, and the ledger outlives the builds"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None
kind = "expand"

_ERASING = """
create function erasing() returns boolean language sql stable
return exists (
    select from erasures
    where id::text = current_setting('cofounder.erasure', true) and finished_at is null
)
"""
"""Whether the transaction belongs to an erasure, as its first statement says: `set local cofounder.erasure`."""

_REFUSE = """
create or replace function refuse_change() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and erasing() then
        return old;
    end if;
    raise exception 'rows of % are never changed: what was sent to the model must stay as it was', tg_table_name;
end $$
"""

_REFUSE_AUDIT = """
create or replace function refuse_change_of_audit() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' and erasing() then
        old.ip := null;
        if new is not distinct from old then
            return new;
        end if;
    end if;
    raise exception 'the audit is only ever added to' using errcode = 'restrict_violation';
end $$
"""
"""Of an entry, an erasure removes the address alone."""

_REFUSE_BEFORE = """
create or replace function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'rows of % are never changed: what was sent to the model must stay as it was', tg_table_name;
end $$
"""

_REFUSE_AUDIT_BEFORE = """
create or replace function refuse_change_of_audit() returns trigger language plpgsql as $$
begin
    raise exception 'the audit is only ever added to' using errcode = 'restrict_violation';
end $$
"""


def _time(name: str, comment: str | None = None) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=True, comment=comment)


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False, comment="whose data; no reference: it outlives them"),
        sa.Column(
            "project_id", sa.UUID(), nullable=True, comment="the project that is erased; null: all of the user's"
        ),
        sa.Column("requested_by", sa.Text(), nullable=False, comment="a user's id, or `operator`"),
        sa.Column("requested_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        _time("started_at", "its workflow is known to have been started"),
        _time("finished_at"),
        sa.Column(
            "counts",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
            comment="what was erased, by kind",
        ),
        sa.Column("sha256", sa.Text(), nullable=True, comment="of the certificate, once it is finished"),
        sa.CheckConstraint("kind in ('project', 'user')", name=op.f("ck_erasures_kind")),
        sa.CheckConstraint("(kind = 'project') = (project_id is not null)", name=op.f("ck_erasures_project")),
        sa.CheckConstraint("(finished_at is null) = (sha256 is null)", name=op.f("ck_erasures_finished")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasures")),
    )
    op.create_index("ix_erasures_user", "erasures", ["user_id", "requested_at"])
    op.create_index("uq_erasures_project", "erasures", ["project_id"], unique=True)
    op.create_index(
        "uq_erasures_open_user",
        "erasures",
        ["user_id"],
        unique=True,
        postgresql_where=sa.text("kind = 'user' and finished_at is null"),
    )
    of_user = "app_every_row() or user_id = app_user_id()"
    of_project = "(select true from projects where projects.id = erasures.project_id)"
    op.execute(f"create policy erasures_select on erasures for select using ({of_user} or {of_project})")
    op.execute(f"create policy erasures_insert on erasures for insert with check ({of_user})")
    op.execute(f"create policy erasures_update on erasures for update using ({of_user}) with check ({of_user})")
    op.execute("alter table erasures enable row level security, force row level security")
    for function in (_ERASING, _REFUSE, _REFUSE_AUDIT):
        op.execute(function)
    op.alter_column("ledger", "build_id", nullable=True)


def downgrade() -> None:
    for function in (_REFUSE_BEFORE, _REFUSE_AUDIT_BEFORE):
        op.execute(function)
    op.execute("delete from ledger where build_id is null")
    op.alter_column("ledger", "build_id", nullable=False)
    op.execute("drop function erasing()")
    op.drop_table("erasures")
