"""Webhooks of organisations, and their deliveries, which a trigger queues in the transaction of the event"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None
kind = "expand"

# The database queues the deliveries, because programs of every version append events. A build is awake when it goes on
# and its last status was sleeping. The function has to see all rows, whoever appends the event. It sets that itself and
# puts it back, because PostgreSQL lets only superusers attach such a setting to a function.
QUEUE = """
create function queue_webhook_deliveries() returns trigger language plpgsql
security definer set search_path from current as $$
declare
    status text := new.data ->> 'status';
    chosen text := case
        when new.type = 'ready' then 'build.ready'
        when status = 'sleeping' then 'build.asleep'
        when status = 'failed' then 'build.failed'
        when status = 'needs_input' and new.data ->> 'waiting_for' = 'founder' then 'build.needs_input'
        when status in ('starting', 'scaffold', 'code', 'checks') then 'build.awake'
    end;
    access text := coalesce(current_setting('app.every_row', true), '');
begin
    if chosen is null then
        return null;
    end if;
    perform set_config('app.every_row', 'on', true);
    insert into webhook_deliveries (webhook_id, topic, build_id, event_id)
    select webhooks.id, chosen, new.build_id, new.id
    from builds join projects on projects.id = builds.project_id join webhooks on webhooks.org_id = projects.org_id
    where builds.id = new.build_id and webhooks.disabled_at is null and webhooks.topics @> to_jsonb(chosen)
        and (chosen <> 'build.awake' or 'sleeping' = (
            select earlier.data ->> 'status' from events as earlier
            where earlier.build_id = new.build_id and earlier.id < new.id and earlier.type = 'status'
            order by earlier.id desc limit 1
        ))
    on conflict do nothing;
    perform set_config('app.every_row', access, true);
    return null;
end
$$
"""

_EVERY = "(select app_every_row())"
_OF_ORG = "org_id = any ((select app_orgs('owner'))::uuid[])"
_OF_WEBHOOK = "(select true from webhooks where webhooks.id = webhook_deliveries.webhook_id)"


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("org_id", sa.UUID(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("topics", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False, comment="the secret that signs"),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["org_id"], ["organisations.id"], name=op.f("fk_webhooks_org_id_organisations"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_index(op.f("ix_webhooks_org_id"), "webhooks", ["org_id"])
    op.create_index(op.f("ix_webhooks_key_id"), "webhooks", ["key_id"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("webhook_id", sa.UUID(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("build_id", sa.UUID(), nullable=True),
        sa.Column("event_id", sa.BigInteger(), nullable=True, comment="of the build; null for a test"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True, comment="HTTP status of the last answer"),
        sa.Column("error", sa.Text(), nullable=True, comment="what was wrong with the last attempt"),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state in ('dead', 'delivered', 'queued', 'sending')", name=op.f("ck_webhook_deliveries_state")
        ),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_webhook_deliveries_webhook_id_webhooks"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name=op.f("fk_webhook_deliveries_build_id_builds"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        sa.UniqueConstraint(
            "webhook_id", "build_id", "event_id", name=op.f("uq_webhook_deliveries_webhook_id_build_id_event_id")
        ),
    )
    op.create_index(
        "ix_webhook_deliveries_due_at",
        "webhook_deliveries",
        ["due_at"],
        postgresql_where=sa.text("state in ('queued', 'sending')"),
    )
    op.create_index("ix_webhook_deliveries_webhook_id_created_at", "webhook_deliveries", ["webhook_id", "created_at"])
    op.create_index(
        "ix_webhook_deliveries_ended_at",
        "webhook_deliveries",
        ["ended_at"],
        postgresql_where=sa.text("ended_at is not null"),
    )
    op.create_index(op.f("ix_webhook_deliveries_build_id"), "webhook_deliveries", ["build_id"])
    for table, condition in (("webhooks", _OF_ORG), ("webhook_deliveries", _OF_WEBHOOK)):
        op.execute(
            f"create policy {table}_all on {table} using ({_EVERY} or ({condition})) "
            f"with check ({_EVERY} or ({condition}))"
        )
        op.execute(f"alter table {table} enable row level security, force row level security")
    op.execute(QUEUE)
    op.execute(
        "create trigger events_webhooks after insert on events for each row "
        "when (new.type in ('status', 'ready')) execute function queue_webhook_deliveries()"
    )


def downgrade() -> None:
    op.execute("drop trigger events_webhooks on events")
    op.execute("drop function queue_webhook_deliveries()")
    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")
